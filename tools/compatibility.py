#!/usr/bin/env python
"""Run the command `densemtl compatibility`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.compatibility import main

if __name__ == "__main__":
    run_main(main)
