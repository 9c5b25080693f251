"""Predictions as files: written, read, and scored whoever made them."""
