#!/usr/bin/env python
"""Run the command `densemtl prepare_nyud`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.prepare_nyud import main

if __name__ == "__main__":
    run_main(main)
