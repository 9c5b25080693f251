"""Multi-task model (normalize, pad, predict, crop), and tools to optimize and analyze it."""
