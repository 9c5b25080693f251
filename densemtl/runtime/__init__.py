"""Device and dtype, RNG state, worker processes, progress bar and versions."""
