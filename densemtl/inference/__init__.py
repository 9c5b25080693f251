"""Prediction on images of any size, with tiling and test-time augmentation."""
