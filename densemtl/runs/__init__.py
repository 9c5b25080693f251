"""Training, evaluation and results of one run."""
