"""The file `results.json`, and tables of results."""
