"""Tasks, one file per task, built on four generic kinds."""
