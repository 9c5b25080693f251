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
    from densemtl.export.support_matrix import Verdict


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names in timm (default: one of each family)")
    parser.add_argument("--decoders", nargs="+", metavar="NAME", help="(default: all)")
    text = "the table, and beside it FILE.json, from which a stopped call goes on"
    parser.add_argument("--output", type=Path, metavar="FILE", required=True, help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Try every pair that was not tried yet; write the table after each."""
    args = parse(argv)
    from tempfile import TemporaryDirectory

    from densemtl.export.support_matrix import MODELS, architectures, try_out

    cells = args.output.with_suffix(".json")
    verdicts = read(cells)
    with TemporaryDirectory() as scratch:
        for model in args.models or MODELS:
            own = verdicts.setdefault(model, {})
            for decoder in args.decoders or architectures():
                if decoder not in own:
                    print(f"{model}, {decoder}", file=sys.stderr)
                    own[decoder] = try_out(decoder, model, Path(scratch, "network.onnx"))
                    write(args.output, cells, verdicts)


def read(cells: Path) -> dict[str, dict[str, Verdict]]:
    """What an earlier call came to."""
    from densemtl.export.support_matrix import Verdict

    found = json.loads(cells.read_text(encoding="utf-8")) if cells.exists() else {}
    return {
        model: {decoder: Verdict(**verdict) for decoder, verdict in own.items()}
        for model, own in found.items()
    }


def write(table: Path, cells: Path, verdicts: dict[str, dict[str, Verdict]]) -> None:
    """Both files, each whole or not at all."""
    from densemtl.io.atomic import replacing, write_json
    from densemtl.export.support_matrix import markdown

    write_json(
        cells,
        {
            model: {decoder: verdict.model_dump() for decoder, verdict in own.items()}
            for model, own in verdicts.items()
        },
    )
    with replacing(table) as draft:
        command = shlex.join(["tools/export_table.py", "--output", str(table)])
        draft.write_text(markdown(verdicts, command), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
