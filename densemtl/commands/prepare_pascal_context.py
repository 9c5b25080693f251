"""Derive edges and body parts of PASCAL-Context once, into a folder for `data.derived_labels`.

The dataset is not modified. After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli

if TYPE_CHECKING:
    from functools import partial

    import numpy as np
    from numpy.typing import NDArray

    from densemtl.types import Split

SPLITS: tuple[Split, ...] = ("train", "val")


def main(argv: list[str] | None = None) -> None:
    """Derive the missing label maps.

    Args:
        argv: arguments; None reads `sys.argv`.

    Raises:
        DataError: if no PASCAL-Context is found, or if a file is corrupt.
    """
    args = _make_parser().parse_args(argv)
    from rich.progress import track

    jobs = _make_edge_jobs(args.root, args.output) + _make_part_jobs(args.root, args.output)
    args.output.mkdir(parents=True, exist_ok=True)
    for job in track(jobs, "deriving"):
        job()
    print(f"{args.output}: {len(jobs)} maps derived; train with data.derived_labels={args.output}")


def _make_parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, help="folder that contains JPEGImages/; not modified")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the maps, for data.derived_labels"
    )
    return parser


def _make_edge_jobs(root: Path, output: Path) -> list[partial[None]]:
    """Return one job per split and LabelMap without an edge map.

    Edges are derived differently for training and evaluation.
    """
    from functools import partial

    from densemtl.data.datasets.pascal_context import (
        EDGE_DERIVATIONS,
        LABEL_MAP_FOLDER,
        SPLIT_LIST_FOLDER,
    )
    from densemtl.io import arrays

    maps, jobs = arrays.index_by_stem(root / LABEL_MAP_FOLDER), []
    for split in SPLITS:
        folder = output / f"edge_{split}"
        existing = arrays.index_by_stem(folder)
        for name in arrays.read_split_list(root / SPLIT_LIST_FOLDER / f"{split}.txt"):
            if name in maps and name not in existing:
                jobs.append(
                    partial(
                        _write_edges, maps[name], folder / f"{name}.png", EDGE_DERIVATIONS[split]
                    )
                )
    return jobs


def _make_part_jobs(root: Path, output: Path) -> list[partial[None]]:
    """Return one job per image with annotated parts and without a part map."""
    from functools import partial

    from densemtl.data.datasets.pascal_context import SPLIT_LIST_FOLDER
    from densemtl.io import arrays

    images, annotations = (
        arrays.index_by_stem(root / "JPEGImages"),
        arrays.index_by_stem(root / "human_parts"),
    )
    folder = output / "human_parts"
    existing, jobs = arrays.index_by_stem(folder), []
    for split in SPLITS:
        for name in arrays.read_split_list(root / SPLIT_LIST_FOLDER / f"{split}.txt"):
            if name in annotations and name not in existing:
                file = folder / f"{name}.png"
                jobs.append(partial(_write_parts, annotations[name], images[name], file))
    return jobs


def _write_edges(
    label_map: Path,
    output: Path,
    derive_edges: Callable[[NDArray[np.integer]], NDArray[np.uint8]],
) -> None:
    from densemtl.data.datasets.pascal_context import read_label_map
    from densemtl.io.writers import write_image

    write_image(output, derive_edges(read_label_map(label_map)) * 255)


def _write_parts(annotation: Path, image: Path, output: Path) -> None:
    """Write the parts of an image, or ignored pixels only if there are no annotated parts."""
    import numpy as np

    from densemtl.data.datasets.pascal_context_parts import read_human_parts
    from densemtl.io import arrays
    from densemtl.io.writers import write_image
    from densemtl.types import IGNORE_INDEX

    parts = read_human_parts(annotation)
    if parts is None:
        parts = np.full(arrays.read_image(image).shape[:2], IGNORE_INDEX, np.uint8)
    write_image(output, parts)
