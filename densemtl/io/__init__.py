"""Readers and writers of files: atomic writes, arrays, images, label formats."""
