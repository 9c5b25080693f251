"""What an experiment costs, measured: data, training step, evaluation, inference."""
