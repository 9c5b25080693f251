#!/usr/bin/env python
"""Run the command `densemtl benchmark_speed`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.benchmark_speed import main

if __name__ == "__main__":
    run_main(main)
