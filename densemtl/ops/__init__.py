"""Array and tensor operations that know nothing of the other packages."""
