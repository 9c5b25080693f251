"""Evaluation protocols, one file per family of metrics with which results are published."""
