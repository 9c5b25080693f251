"""Helpers of several tests: tiny experiments, fake datasets, processes of two ranks."""
