"""Datasets, one file each, and the way from files to batches."""
