"""Backbones: any timm model as a feature pyramid, run as a whole or stage by stage."""
