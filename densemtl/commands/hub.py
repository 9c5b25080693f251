"""Publish a trained model: write a folder with a model card, or upload it to the hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli
from densemtl.commands._checkpoint import add_checkpoint_argument


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(description=__doc__)
    add_checkpoint_argument(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--save", type=Path, metavar="FOLDER", help="folder to write")
    target.add_argument("--push", metavar="OWNER/NAME", help="repository on the hub to upload to")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    text = "license of the weights, as an identifier of the hub (default: other)"
    parser.add_argument("--license", default="other", help=text)
    cli.add_old_spelling(parser, "--licence", "license")
    text = "include images of the validation split, whatever the dataset is"
    parser.add_argument("--panels", action="store_true", default=None, help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the folder or upload the model.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    cli.check_run_path(args.checkpoint)
    from densemtl.hub.upload import push_to_hub, save_pretrained

    if args.save:
        folder = save_pretrained(
            args.checkpoint, args.save, license=args.license, panels=args.panels
        )
        print(f"model folder: {folder}")
        return
    address = push_to_hub(
        args.checkpoint,
        args.push,
        private=not args.public,
        license=args.license,
        panels=args.panels,
    )
    print(f"published network: {address}")
