"""Train, evaluate and record one run."""
