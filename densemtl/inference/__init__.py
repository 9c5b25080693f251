"""Predict images of any size: fit, tile and test-time augmentation."""
