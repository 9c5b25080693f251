"""Prepare NYUD-v2: build the survey's layout from the official files, or derive missing normals.

After an interruption, the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from densemtl import cli
from densemtl.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from densemtl.data.datasets.nyud_raw import RawFrame
    from densemtl.io.vector_formats import AxisConvention

T = TypeVar("T")

OPTIONS_NAME = "prepared.json"
"""Name of the file in the folder that stores the options."""

AXIS_CHOICES = ("right", "left", "down", "up", "forward", "backward")

AXES_HELP = "axes of the given normals, as data.normals_axes (default: right down forward)"


def main(argv: list[str] | None = None) -> None:
    """Run one of the two commands.

    Args:
        argv: arguments; None reads `sys.argv`.

    Raises:
        DataError: if an input is missing or corrupt, or the output folder has other files.
    """
    args = _make_parser().parse_args(argv)
    if args.command == "official":
        build_from_raw_file(args.file, args.splits, args.output, crop=not args.full)
    else:
        derive_normals(args.root, args.output, include_given=args.all)
        compare_normals(args.root, tuple(args.normals_axes), args.compare)


def _make_parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    official = commands.add_parser(
        "official", help="build the survey's layout from nyu_depth_v2_labeled.mat"
    )
    official.add_argument("file", type=Path, help="nyu_depth_v2_labeled.mat")
    official.add_argument("--splits", type=Path, required=True, help="splits.mat")
    official.add_argument(
        "--output", type=Path, required=True, help="new folder, or incomplete folder to resume"
    )
    official.add_argument(
        "--full", action="store_true", help="keep 480x640 pixels instead of the crop of 425x560"
    )
    normals = commands.add_parser(
        "normals", help="derive normals from depth for images that have no normals"
    )
    normals.add_argument("root", type=Path, help="folder in the survey's layout; not modified")
    normals.add_argument(
        "--output", type=Path, required=True, help="folder of the normals, for data.derived_normals"
    )
    normals.add_argument(
        "--all", action="store_true", help="derive normals also for images that have normals"
    )
    normals.add_argument(
        "--compare",
        type=int,
        default=400,
        metavar="N",
        help="maximum number of images whose given normals are compared (default: 400)",
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
    """Write images, classes, depth, normals, edges and split lists of all official images.

    Args:
        file: path of nyu_depth_v2_labeled.mat.
        splits_file: path of splits.mat.
        output: folder to write; existing images are skipped.
        crop: crop to the 425x560 pixels that are valid in both cameras.

    Raises:
        DataError: if an input is missing or corrupt, or the output folder has other files.
    """
    from densemtl.data.datasets.nyud_raw import NYUDRawFile, read_splits
    from densemtl.io.writers import write_split_list

    numbers = read_splits(splits_file)
    official = NYUDRawFile(file, crop=crop)
    largest = max(map(max, numbers.values()))
    if largest > len(official):
        raise DataError(
            f"{splits_file}: contains image {largest}, but {file} has {len(official)} images;"
            " download both files again"
        )
    _claim_folder(output, crop)
    for number in _track_progress(sorted({*numbers["train"], *numbers["val"]}), "images"):
        if not (output / "images" / f"{number:04d}.jpg").exists():
            _write_frame(output, f"{number:04d}", official[number - 1])
    for split, members in numbers.items():
        ids = [f"{number:04d}" for number in members]
        write_split_list(output / "gt_sets" / f"{split}.txt", ids)
    counts = ", ".join(f"{len(members)} {split}" for split, members in numbers.items())
    print(f"{output}: {counts} images")


def _claim_folder(folder: Path, crop: bool) -> None:
    """Store the crop in a new folder, or check that an existing one has the same crop."""
    import json

    from densemtl.io.atomic import write_json

    file = folder / OPTIONS_NAME
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) != {"crop": crop}:
            with_or_without = "without" if crop else "with"
            raise DataError(f"{folder}: made {with_or_without} the crop; give another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: contains other files; give a new folder")
    else:
        write_json(file, {"crop": crop})


def _write_frame(root: Path, name: str, frame: RawFrame) -> None:
    """Write all files of an image; the image itself is last and marks that all are written."""
    from densemtl.data import derived_labels
    from densemtl.data.datasets.nyud_metadata import get_intrinsics
    from densemtl.io import writers
    from densemtl.io.number_formats import decode_depth

    depth = decode_depth(frame.depth, root / "depth" / f"{name}.npy")
    normals = derived_labels.normals_from_depth(depth, get_intrinsics(depth.shape))
    edges = derived_labels.derive_region_edges(frame.regions) * 255
    writers.write_image(root / "segmentation" / f"{name}.png", frame.class_ids)
    writers.write_array(root / "depth" / f"{name}.npy", frame.depth)
    writers.write_normals(root / "normals" / f"{name}.png", normals, bits=16)
    writers.write_image(root / "edge" / f"{name}.png", edges)
    writers.write_image(root / "images" / f"{name}.jpg", frame.image)


def derive_normals(root: Path, output: Path, *, include_given: bool = False) -> None:
    """Write normals derived from depth to OUTPUT/ID.png.

    Args:
        root: folder in the survey's layout, which is not modified.
        output: folder to write; existing files are skipped.
        include_given: derive normals also for images that have normals.

    Raises:
        DataError: if there is no depth, a depth map is corrupt, or `output` is the folder of the
            given normals.
    """
    from densemtl.io import arrays
    from densemtl.io.writers import write_normals

    depths = arrays.index_by_stem(root / "depth")
    if not depths:
        raise DataError(f"{root / 'depth'}: no depth maps here; give a folder with depth/")
    if output.resolve() == (root / "normals").resolve():
        raise DataError(f"{output}: contains the given normals; give another folder")
    given = {} if include_given else arrays.index_by_stem(root / "normals")
    existing = arrays.index_by_stem(output)
    missing = [name for name in depths if name not in given and name not in existing]
    for name in _track_progress(missing, "normals"):
        write_normals(output / f"{name}.png", _compute_normals_of_file(depths[name]), bits=8)
    print(f"{output}: {len(missing)} written, {len(existing)} already existed")


def compare_normals(root: Path, axes: AxisConvention, max_frames: int) -> None:
    """Print the angles between derived and given normals.

    Args:
        root: folder in the survey's layout.
        axes: direction in which each channel of the given normals increases.
        max_frames: maximum number of images, which are evenly spaced; 0 skips the comparison.

    Raises:
        DataError: if a file is corrupt.
    """
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
    print(f"angle to the given normals of {len(chosen)} images: {angles}; {within}")


def _compute_normals_of_file(file: Path) -> NDArray[np.float32]:
    from densemtl.data import derived_labels
    from densemtl.data.datasets.nyud import read_depth
    from densemtl.data.datasets.nyud_metadata import get_intrinsics

    depth = read_depth(file)
    return derived_labels.normals_from_depth(depth, get_intrinsics(depth.shape))


def _track_progress(items: Sequence[T], description: str) -> Iterable[T]:
    from rich.progress import track

    return track(items, description)
