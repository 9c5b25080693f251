"""Collection, comparison and combination of the gradients of several tasks."""
