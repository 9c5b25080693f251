"""Loss and gradient balancing methods, one file each."""
