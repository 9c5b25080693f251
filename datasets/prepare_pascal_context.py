"""Derive edges and body parts of PASCAL-Context once, into a folder for `data.cache`.

The archive stays untouched. The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from functools import partial

    from densemtl.data.base import Split

SPLITS: tuple[Split, ...] = ("train", "val")


def main(argv: list[str] | None = None) -> None:
    """Parse, list what is missing, derive it.

    Raises:
        DataError: no PASCAL-Context there, or a file is corrupt.
    """
    args = _parser().parse_args(argv)
    from rich.progress import track

    jobs = _edge_jobs(args.root, args.output) + _part_jobs(args.root, args.output)
    args.output.mkdir(parents=True, exist_ok=True)
    for job in track(jobs, "deriving"):
        job()
    print(f"{args.output}: {len(jobs)} maps derived; train with data.cache={args.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder that holds JPEGImages/; only read")
    parser.add_argument("--output", type=Path, required=True, help="for data.cache")
    return parser


def _edge_jobs(root: Path, output: Path) -> list[partial[None]]:
    """One a LabelMap that has no edge map yet; training and evaluation have rules of their own."""
    from functools import partial

    from densemtl.io import arrays
    from densemtl.data.datasets.pascal_context import EDGES, LABEL_MAPS, LISTS

    maps, jobs = arrays.index(root / LABEL_MAPS), []
    for split in SPLITS:
        folder = output / f"edge_{split}"
        done = arrays.index(folder)
        for name in arrays.read_ids(root / LISTS / f"{split}.txt"):
            if name in maps and name not in done:
                jobs.append(partial(_edge, maps[name], folder / f"{name}.png", EDGES[split]))
    return jobs


def _part_jobs(root: Path, output: Path) -> list[partial[None]]:
    """One an annotated image of either split that has no part map yet."""
    from functools import partial

    from densemtl.io import arrays
    from densemtl.data.datasets.pascal_context import LISTS

    images, found = arrays.index(root / "JPEGImages"), arrays.index(root / "human_parts")
    folder = output / "human_parts"
    done, jobs = arrays.index(folder), []
    for split in SPLITS:
        for name in arrays.read_ids(root / LISTS / f"{split}.txt"):
            if name in found and name not in done:
                jobs.append(partial(_parts, found[name], images[name], folder / f"{name}.png"))
    return jobs


def _edge(label_map: Path, output: Path, rule: Callable) -> None:
    from densemtl.data.datasets.pascal_context import read_label_map
    from densemtl.io.writers import write_picture

    write_picture(output, rule(read_label_map(label_map)) * 255)


def _parts(annotation: Path, image: Path, output: Path) -> None:
    """Void throughout where no person is annotated, so that nothing is left to derive."""
    import numpy as np

    from densemtl.io import arrays
    from densemtl.data.datasets.pascal_context_parts import read_parts
    from densemtl.io.writers import write_picture
    from densemtl.types import VOID

    parts = read_parts(annotation)
    if parts is None:
        parts = np.full(arrays.read_image(image).shape[:2], VOID, np.uint8)
    write_picture(output, parts)


if __name__ == "__main__":
    from densemtl.cli import run

    run(main)
