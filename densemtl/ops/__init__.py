"""Array and tensor operations that do not depend on the other packages."""
