"""Tasks: one file a task, on four generic kinds."""
