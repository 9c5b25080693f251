"""Architectures: one file a method of sharing."""
