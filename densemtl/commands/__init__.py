"""Command line: one file per command, whose `main` the scripts in the checkout call as well."""
