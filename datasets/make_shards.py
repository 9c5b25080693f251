#!/usr/bin/env python
"""Run the command `densemtl make_shards`, for use in a checkout."""

from densemtl.cli import run_main
from densemtl.commands.make_shards import main

if __name__ == "__main__":
    run_main(main)
