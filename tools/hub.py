#!/usr/bin/env python
"""Give a trained network away: write a folder with a model card, or publish it on the hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--save", type=Path, metavar="FOLDER", help="write it there")
    target.add_argument("--push", metavar="OWNER/NAME", help="publish it on the Hugging Face hub")
    parser.add_argument("--public", action="store_true", help="let everyone see a new repository")
    text = "of the weights, by its hub identifier (default: not stated)"
    parser.add_argument("--licence", default="other", help=text)
    text = "show pictures of the validation set, whatever the dataset is"
    parser.add_argument("--panels", action="store_true", default=None, help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write or publish."""
    args = parse_args(argv)
    from densemtl.hub.upload import push_to_hub, save_pretrained

    if args.save:
        folder = save_pretrained(
            args.checkpoint, args.save, license=args.licence, panels=args.panels
        )
        print(f"published network: {folder}")
        return
    address = push_to_hub(
        args.checkpoint,
        args.push,
        private=not args.public,
        license=args.licence,
        panels=args.panels,
    )
    print(f"published network: {address}")


if __name__ == "__main__":
    cli.run_main(main)
