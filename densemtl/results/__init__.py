"""`results.json` and the tables made of it."""
