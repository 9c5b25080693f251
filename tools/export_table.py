#!/usr/bin/env python
"""Run the command `densemtl export_table`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.export_table import main

if __name__ == "__main__":
    run_main(main)
