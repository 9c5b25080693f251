"""Export all decoders on timm models, and write a Markdown table of differences and failures."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.export.support_matrix import ExportResult


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names of timm models (default: one per family)")
    parser.add_argument("--decoders", nargs="+", metavar="NAME", help="decoders (default: all)")
    text = "Markdown file; a JSON file next to it allows to resume a stopped call"
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Export all pairs that have no result yet, and write the table after each pair.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    from tempfile import TemporaryDirectory

    from densemtl.export.support_matrix import BACKBONES, check_pair, list_architectures

    json_file = args.output.with_suffix(".json")
    verdicts = read_verdicts(json_file)
    with TemporaryDirectory() as scratch:
        for model in args.models or BACKBONES:
            own = verdicts.setdefault(model, {})
            for decoder in args.decoders or list_architectures():
                if decoder not in own:
                    print(f"{model}, {decoder}", file=sys.stderr)
                    own[decoder] = check_pair(decoder, model, Path(scratch, "network.onnx"))
                    write_verdicts(args.output, json_file, verdicts)


def read_verdicts(file: Path) -> dict[str, dict[str, ExportResult]]:
    """Read the results of an earlier call.

    Args:
        file: JSON file that `write_verdicts` wrote; it need not exist.

    Returns:
        {timm model: {decoder: result}}; empty if the file does not exist.
    """
    from densemtl.export.support_matrix import ExportResult

    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {
        model: {decoder: ExportResult(**verdict) for decoder, verdict in own.items()}
        for model, own in content.items()
    }


def write_verdicts(
    table: Path, json_file: Path, verdicts: dict[str, dict[str, ExportResult]]
) -> None:
    """Write the Markdown table and the JSON file atomically.

    Args:
        table: Markdown file.
        json_file: JSON file for later calls.
        verdicts: {timm model: {decoder: result}}.
    """
    from densemtl.export.support_matrix import to_markdown
    from densemtl.io.atomic import atomic_write, write_json

    write_json(
        json_file,
        {
            model: {decoder: verdict.model_dump() for decoder, verdict in own.items()}
            for model, own in verdicts.items()
        },
    )
    with atomic_write(table) as tmp_path:
        command = shlex.join(["densemtl", "export_table", "--output", str(table)])
        tmp_path.write_text(to_markdown(verdicts, command), encoding="utf-8")
