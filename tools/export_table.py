#!/usr/bin/env python
"""Export every architecture on timm models, and write which stays how close as a Markdown table."""

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
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names in timm (default: one of each family)")
    parser.add_argument("--decoders", nargs="+", metavar="NAME", help="(default: all)")
    text = "the table, and beside it FILE.json, from which a stopped call goes on"
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Try every pair that was not tried yet; write the table after each."""
    args = parse_args(argv)
    from tempfile import TemporaryDirectory

    from densemtl.export.support_matrix import BACKBONES, check_pair, list_architectures

    cells = args.output.with_suffix(".json")
    verdicts = read_verdicts(cells)
    with TemporaryDirectory() as scratch:
        for model in args.models or BACKBONES:
            own = verdicts.setdefault(model, {})
            for decoder in args.decoders or list_architectures():
                if decoder not in own:
                    print(f"{model}, {decoder}", file=sys.stderr)
                    own[decoder] = check_pair(decoder, model, Path(scratch, "network.onnx"))
                    write_verdicts(args.output, cells, verdicts)


def read_verdicts(file: Path) -> dict[str, dict[str, ExportResult]]:
    """What an earlier call came to."""
    from densemtl.export.support_matrix import ExportResult

    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {
        model: {decoder: ExportResult(**verdict) for decoder, verdict in own.items()}
        for model, own in found.items()
    }


def write_verdicts(
    table: Path, json_file: Path, verdicts: dict[str, dict[str, ExportResult]]
) -> None:
    """Both files, each whole or not at all."""
    from densemtl.export.support_matrix import to_markdown
    from densemtl.io.atomic import atomic_write, write_json

    write_json(
        json_file,
        {
            model: {decoder: verdict.model_dump() for decoder, verdict in own.items()}
            for model, own in verdicts.items()
        },
    )
    with atomic_write(table) as draft:
        command = shlex.join(["tools/export_table.py", "--output", str(table)])
        draft.write_text(to_markdown(verdicts, command), encoding="utf-8")


if __name__ == "__main__":
    cli.run_main(main)
