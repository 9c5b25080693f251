#!/usr/bin/env python
"""Run the command `densemtl train`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.train import main

if __name__ == "__main__":
    run_main(main)
