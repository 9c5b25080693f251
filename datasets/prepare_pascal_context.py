#!/usr/bin/env python
"""Run the command `densemtl prepare_pascal_context`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.prepare_pascal_context import main

if __name__ == "__main__":
    run_main(main)
