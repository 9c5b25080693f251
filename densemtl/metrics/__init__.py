"""Metrics with states that are summed over batches and ranks, one file per metric."""
