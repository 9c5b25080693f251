"""Trained networks given away and fetched: a folder, or a repository of the Hugging Face hub."""
