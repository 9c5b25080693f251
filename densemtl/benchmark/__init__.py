"""Train a grid of runs and report how they compare."""
