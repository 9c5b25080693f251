"""Metrics over a split, of a model or of files of predictions."""
