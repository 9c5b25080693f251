#!/usr/bin/env python
"""Run the command `densemtl branch`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.branch import main

if __name__ == "__main__":
    run_main(main)
