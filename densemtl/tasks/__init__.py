"""Tasks, one file each, built on four generic kinds."""
