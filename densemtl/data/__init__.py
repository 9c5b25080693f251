"""Data sets and the way from their samples to batches."""
