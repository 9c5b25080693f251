"""Write synthetic rooms to disk in the layout of NYUD-v2 or of PASCAL-Context.

The folder can be used instead of the real dataset, with the same dataset class. After an
interruption, the same command resumes. Training on synthetic rooms needs no files: set
`data.name=synthetic`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemtl import cli
from densemtl.errors import DataError

if TYPE_CHECKING:
    from densemtl.data.datasets.synthetic_scenes.export import ExportJob
    from densemtl.types import Split

FORMATS = ("nyud", "pascal_context")

OPTIONS_NAME = "synthetic.json"
"""Name of the file in the folder that stores the options."""


def main(argv: list[str] | None = None) -> None:
    """Check the folder, render the missing images, then write the split lists.

    Args:
        argv: arguments; None reads `sys.argv`.

    Raises:
        ConfigError: if the size or the seed is too small.
        DataError: if the folder has other files, or rooms made with other options.
    """
    args = _make_parser().parse_args(argv)
    jobs = _make_jobs(args)
    _claim_folder(args.output, _get_options(args))
    _run_jobs(jobs, args.workers)
    from densemtl.data.datasets.synthetic_scenes.export import LAYOUTS

    for split, numbers in _get_image_numbers(args).items():
        LAYOUTS[args.format].write_split(args.output, split, numbers)
    print(f"{args.output}: {args.train} training and {args.val} validation images")


def _make_parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("format", choices=FORMATS, help="layout of the files")
    parser.add_argument("output", type=Path, help="new folder, or incomplete folder to resume")
    parser.add_argument(
        "--train",
        type=_parse_non_negative,
        default=1000,
        metavar="N",
        help="number of training images (default: 1000)",
    )
    parser.add_argument(
        "--val",
        type=_parse_non_negative,
        default=200,
        metavar="N",
        help="number of validation images (default: 200)",
    )
    parser.add_argument(
        "--size",
        type=_parse_non_negative,
        nargs=2,
        default=(128, 160),
        metavar=("H", "W"),
        help="height and width in pixels (default: 128 160)",
    )
    parser.add_argument(
        "--seed", type=_parse_non_negative, default=0, help="seed of the rooms (default: 0)"
    )
    parser.add_argument(
        "--workers",
        type=_parse_non_negative,
        default=0,
        help="number of worker processes; 0 renders in this process (default: 0)",
    )
    return parser


def _parse_non_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; give 0 or more")
    return value


def _get_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that determine the content of the files."""
    return {
        "format": args.format,
        "train": args.train,
        "val": args.val,
        "size": list(args.size),
        "seed": args.seed,
    }


def _get_image_numbers(args: argparse.Namespace) -> dict[Split, range]:
    """Return the numbers of the images of each split, from 1."""
    return {
        "train": range(1, args.train + 1),
        "val": range(args.train + 1, args.train + args.val + 1),
    }


def _claim_folder(folder: Path, options: dict[str, Any]) -> None:
    """Store the options in a new folder, or check that an existing one has the same options."""
    from densemtl.io.atomic import write_json

    file = folder / OPTIONS_NAME
    if file.exists():
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored != options:
            changed = [key for key in options if stored.get(key) != options[key]]
            raise DataError(
                f"{folder}: made with another {', '.join(changed)}; "
                f"give the options in {file.name}, or another folder"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: contains other files; give a new folder")
    else:
        write_json(file, options)


def _make_jobs(args: argparse.Namespace) -> list[ExportJob]:
    """Return the jobs of the missing images, which are numbered from 1 over both splits."""
    from densemtl import registry
    from densemtl.data.datasets.synthetic_scenes.export import LAYOUTS, ExportJob

    layout = LAYOUTS[args.format]
    jobs = []
    for split, numbers in _get_image_numbers(args).items():
        options = {"train_images": args.train, "val_images": args.val}
        options |= {"size": args.size, "seed": args.seed}
        rooms = registry.create("data.datasets", "synthetic", split, (), options=options)
        for index, number in enumerate(numbers):
            if not layout.is_written(args.output, number):
                jobs.append(
                    ExportJob(layout, args.output, number, partial(rooms.render_scene, index))
                )
    return jobs


def _run_jobs(jobs: Sequence[ExportJob], workers: int) -> None:
    from rich.progress import track

    for _ in track(_iter_results(jobs, workers), "rendering", total=len(jobs)):
        pass


def _iter_results(jobs: Sequence[ExportJob], workers: int) -> Iterator[None]:
    """Run jobs in this process or in worker processes, and yield after each job, in order."""
    from densemtl.data.datasets.synthetic_scenes.export import ExportJob

    if workers == 0:
        yield from map(ExportJob.run, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(ExportJob.run, jobs, chunksize=4)
