"""Evaluation over a split, of a model or of prediction files."""
