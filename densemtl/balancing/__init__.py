"""Loss and gradient balancing: one file a method."""
