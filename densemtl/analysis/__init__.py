"""Where a trained network fails, and how its tasks get on with each other."""
