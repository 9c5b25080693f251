"""Geometric transforms, color transforms and camera intrinsics."""
