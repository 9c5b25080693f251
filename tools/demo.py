#!/usr/bin/env python
"""Run the command `densemtl demo`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.demo import main

if __name__ == "__main__":
    run_main(main)
