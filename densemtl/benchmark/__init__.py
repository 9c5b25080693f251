"""Architectures against each other: a grid of runs, and the report on it."""
