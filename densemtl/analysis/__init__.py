"""Inspect a model: cost, sharing, failures, task affinity and speed."""
