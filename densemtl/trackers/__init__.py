"""Where a run's numbers and pictures are shown while it goes, besides its own `log.jsonl`."""
