"""Figures: prediction panels and training curves."""
