"""Tests of densemtl; the folders mirror the package."""
