"""Benchmarks: grids of training runs, and reports that compare them."""
