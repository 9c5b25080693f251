"""Publish a trained model: write a folder with a model card, or upload it to the hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli
from densemtl.commands._checkpoint import add_checkpoint_argument

if TYPE_CHECKING:
    from densemtl.results.results import Results


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
    text = "store weights in half precision; --evaluate measures the metrics after rounding"
    parser.add_argument("--half", action="store_true", help=text)
    text = "evaluate the stored weights on the validation split, for results and card"
    parser.add_argument("--evaluate", action="store_true", help=text)
    text = "Markdown that the card ends with, e.g. limitations and licenses of the data"
    parser.add_argument("--notes", type=Path, metavar="FILE", help=text)
    cli.add_trust_argument(parser)
    cli.add_device_argument(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the folder or upload the model.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    cli.check_run_path(args.checkpoint)
    notes = read_notes(args.notes)
    from densemtl.hub.upload import push_to_hub, save_pretrained

    results = evaluate(args) if args.evaluate else None
    options = {"license": args.license, "panels": args.panels, "half": args.half, "notes": notes}
    if args.save:
        folder = save_pretrained(args.checkpoint, args.save, results=results, **options)
        print(f"model folder: {folder}")
        return
    address = push_to_hub(
        args.checkpoint, args.push, private=not args.public, results=results, **options
    )
    print(f"published network: {address}")


def read_notes(file: Path | None) -> str:
    """Read the notes of the model card.

    Args:
        file: a Markdown file; None for no notes.

    Returns:
        The text.

    Raises:
        ConfigError: if the file cannot be read.
    """
    from densemtl.errors import ConfigError, shorten_error

    try:
        return file.read_text(encoding="utf-8") if file else ""
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise ConfigError(f"--notes: {file}: cannot be read: {shorten_error(error)}") from error


def evaluate(args: argparse.Namespace) -> Results:
    """Evaluate the weights that will be stored.

    Args:
        args: parsed command line.

    Returns:
        The results.
    """
    from densemtl.distributed.session import distributed_session
    from densemtl.runs.evaluate_published import evaluate_published

    with distributed_session(args.device):
        return evaluate_published(
            args.checkpoint,
            half=args.half,
            device=args.device,
            trust_custom_code=args.trust_custom_code,
        )
