"""Backbone, shared layers and the whole model."""
