"""Protocols: one file for each family of metrics in which results are published."""
