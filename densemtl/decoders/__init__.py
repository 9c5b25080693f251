"""Decoder architectures, one file each."""
