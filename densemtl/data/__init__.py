"""Dataset base classes, caches, and the loaders that turn samples into batches."""
