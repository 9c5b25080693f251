#!/usr/bin/env python
"""Run the command `densemtl summary`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.summary import main

if __name__ == "__main__":
    run_main(main)
