"""Where a trained network fails."""
