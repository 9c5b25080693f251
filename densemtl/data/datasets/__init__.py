"""Datasets that `data.name` may select, one file each."""
