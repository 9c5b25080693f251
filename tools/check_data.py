#!/usr/bin/env python
"""Run the command `densemtl check_data`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.check_data import main

if __name__ == "__main__":
    run_main(main)
