"""Task heads, one per file: modules that map a feature pyramid to the logits of a task."""
