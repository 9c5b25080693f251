"""Prepare NYUD-v2: build the survey's layout from the official files, or derive missing normals.

The same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from densemtl.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from densemtl.data.datasets.nyud_raw import RawFrame
    from densemtl.io.label_formats import AxisConvention

T = TypeVar("T")

OPTIONS_NAME = "prepared.json"
"""Says in the folder how it was made."""

AXIS_CHOICES = ("right", "left", "down", "up", "forward", "backward")

AXES_HELP = "as data.normals_axes, of the given normals (right down forward)"


def main(argv: list[str] | None = None) -> None:
    """Parse and run one of the two commands.

    Raises:
        DataError: an input is missing or corrupt, or the output folder holds something else.
    """
    args = _make_parser().parse_args(argv)
    if args.command == "official":
        build_from_raw_file(args.file, args.splits, args.output, crop=not args.full)
    else:
        derive_normals(args.root, args.output, include_given=args.all)
        compare_normals(args.root, tuple(args.normals_axes), args.compare)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    official = commands.add_parser("official", help="from nyu_depth_v2_labeled.mat")
    official.add_argument("file", type=Path, help="nyu_depth_v2_labeled.mat")
    official.add_argument("--splits", type=Path, required=True, help="splits.mat")
    official.add_argument("--output", type=Path, required=True, help="a new folder, or to complete")
    official.add_argument("--full", action="store_true", help="480x640, not the crop of 425x560")
    normals = commands.add_parser("normals", help="from depth, for frames that have no normals")
    normals.add_argument("root", type=Path, help="a folder in the survey's layout; only read")
    normals.add_argument("--output", type=Path, required=True, help="for data.derived_normals")
    normals.add_argument("--all", action="store_true", help="also for frames that have normals")
    normals.add_argument(
        "--compare", type=int, default=400, metavar="N", help="given normals to hold against (400)"
    )
    normals.add_argument(
        "--normals-axes",
        nargs=3,
        choices=AXIS_CHOICES,
        default=AXIS_CHOICES[::2],
        metavar="AXIS",
        help=AXES_HELP,
    )
    return parser


def build_from_raw_file(file: Path, splits_file: Path, output: Path, *, crop: bool = True) -> None:
    """Write images, classes, depth, normals, edges and split lists of all official frames."""
    from densemtl.data.datasets.nyud_raw import NYUDRawFile, read_splits
    from densemtl.io.writers import write_split_list

    numbers = read_splits(splits_file)
    official = NYUDRawFile(file, crop=crop)
    beyond = max(map(max, numbers.values()))
    if beyond > len(official):
        raise DataError(f"{splits_file}: names frame {beyond}, {file} has {len(official)}")
    _claim_folder(output, crop)
    for number in _track_progress(sorted({*numbers["train"], *numbers["val"]}), "frames"):
        if not (output / "images" / f"{number:04d}.jpg").exists():
            _write_frame(output, f"{number:04d}", official[number - 1])
    for split, own in numbers.items():
        write_split_list(output / "gt_sets" / f"{split}.txt", [f"{number:04d}" for number in own])
    print(f"{output}: " + ", ".join(f"{len(own)} {split}" for split, own in numbers.items()))


def _claim_folder(folder: Path, crop: bool) -> None:
    """Mark a new folder as made with this crop, or check that it was."""
    import json

    from densemtl.io.atomic import write_json

    note = folder / OPTIONS_NAME
    if note.exists():
        if json.loads(note.read_text(encoding="utf-8")) != {"crop": crop}:
            made = "without" if crop else "with"
            raise DataError(f"{folder}: made {made} the crop; give another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and holds something else; give a new folder")
    else:
        write_json(note, {"crop": crop})


def _write_frame(root: Path, name: str, frame: RawFrame) -> None:
    """All files of a frame; the image comes last, so that it says the frame is done."""
    from densemtl.data import derived_labels
    from densemtl.data.datasets.nyud_metadata import get_intrinsics
    from densemtl.io import writers
    from densemtl.io.label_formats import decode_depth

    depth = decode_depth(frame.depth, root / "depth" / f"{name}.npy")
    normals = derived_labels.normals_from_depth(depth, get_intrinsics(depth.shape))
    edges = derived_labels.derive_region_edges(frame.regions) * 255
    writers.write_image(root / "segmentation" / f"{name}.png", frame.class_ids)
    writers.write_array(root / "depth" / f"{name}.npy", frame.depth)
    writers.write_normals(root / "normals" / f"{name}.png", normals, bits=16)
    writers.write_image(root / "edge" / f"{name}.png", edges)
    writers.write_image(root / "images" / f"{name}.jpg", frame.image)


def derive_normals(root: Path, output: Path, *, include_given: bool = False) -> None:
    """Write OUTPUT/ID.png for the frames of `root` without normals, or for all."""
    from densemtl.io import arrays
    from densemtl.io.writers import write_normals

    depths = arrays.index_by_stem(root / "depth")
    if not depths:
        raise DataError(f"{root / 'depth'}: no depth maps here; give a folder with depth/")
    if output.resolve() == (root / "normals").resolve():
        raise DataError(f"{output}: holds the given normals; give a folder of its own")
    given = {} if include_given else arrays.index_by_stem(root / "normals")
    done = arrays.index_by_stem(output)
    wanted = [name for name in depths if name not in given and name not in done]
    for name in _track_progress(wanted, "normals"):
        write_normals(output / f"{name}.png", _compute_normals_of_file(depths[name]), bits=8)
    print(f"{output}: {len(wanted)} written, {len(done)} were there")


def compare_normals(root: Path, axes: AxisConvention, max_frames: int) -> None:
    """Print angles between derived and given normals, over at most so many frames."""
    import torch

    from densemtl.data.datasets.nyud import read_normals
    from densemtl.io import arrays
    from densemtl.metrics.normals import NormalsMetric

    given, depths = arrays.index_by_stem(root / "normals"), arrays.index_by_stem(root / "depth")
    both = [name for name in given if name in depths]
    if not both or max_frames < 1:
        return
    metric, chosen = NormalsMetric(), both[:: -(-len(both) // max_frames)]
    for name in _track_progress(chosen, "comparing"):
        label = torch.from_numpy(read_normals(given[name], axes))
        derived = torch.from_numpy(_compute_normals_of_file(depths[name]))
        label[derived.isnan()] = torch.nan
        metric.update(derived.nan_to_num().movedim(-1, 0)[None], label.movedim(-1, 0)[None])
    values = metric.compute()
    angles = f"mean {values['mErr']:.2f}, median {values['median']:.2f} degrees"
    within = f"{values['within_11.25']:.1f} % within 11.25"
    print(f"angle to the given normals of {len(chosen)} frames: {angles}; {within}")


def _compute_normals_of_file(file: Path) -> NDArray[np.float32]:
    from densemtl.data import derived_labels
    from densemtl.data.datasets.nyud import read_depth
    from densemtl.data.datasets.nyud_metadata import get_intrinsics

    depth = read_depth(file)
    return derived_labels.normals_from_depth(depth, get_intrinsics(depth.shape))


def _track_progress(items: Sequence[T], description: str) -> Iterable[T]:
    from rich.progress import track

    return track(items, description)


if __name__ == "__main__":
    from densemtl.cli import run_main

    run_main(main)
