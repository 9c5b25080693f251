"""Metrics with sum-reducible state: one file a metric."""
