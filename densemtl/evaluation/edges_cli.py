"""Compute the boundary F-measure of stored predictions, without the network."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from densemtl import cli
from densemtl.errors import ConfigError
from densemtl.io.atomic import atomic_write, write_json
from densemtl.metrics.boundary.protocols import MAX_DISTANCE, Protocol, make_even_thresholds
from densemtl.metrics.protocols import modern, survey

if TYPE_CHECKING:
    from densemtl.evaluation.boundary_files import BoundaryPair
    from densemtl.metrics.boundary.counts import BoundaryCounts


@dataclass(frozen=True)
class BoundaryOptions:
    """Options of reading and evaluating files.

    Attributes:
        protocol: how probabilities are converted to boundaries.
        max_distance: largest distance of matched pixels, as a fraction of the image diagonal.
        regions: whether boundary maps of the ground truth are read as region ids.
    """

    protocol: Protocol
    max_distance: float
    regions: bool


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None for `sys.argv[1:]`.

    Returns:
        The parsed arguments.
    """
    prog = f"{Path(sys.argv[0]).name} edges"
    parser = cli.ArgumentParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help=".png (8, 16 bit) or .npy")
    add("--ground-truth", type=Path, required=True, metavar="DIR", help=".png, .npy or .mat")
    text = "names of the images to evaluate, one per line (default: all)"
    add("--list", type=Path, metavar="FILE", help=text)
    add("--json", type=Path, required=True, metavar="OUT", help="file for the results")
    add("--plot", type=Path, metavar="PNG", help="draw the precision-recall curve")
    text = "matching distance as a fraction of the diagonal (default: %(default)s; NYUD-v2: .011)"
    add("--max-dist", type=float, default=MAX_DISTANCE, metavar="D", help=text)
    text = "number of evenly spaced thresholds (default: those of the protocol)"
    add("--thresholds", type=int, metavar="N", help=text)
    text = "use protocol survey, without non-maximum suppression (default: protocol modern)"
    add("--no-nms", action="store_true", help=text)
    text = "read all ground-truth maps as maps of regions, also boundary maps"
    add("--regions", action="store_true", help=text)
    add("--workers", type=int, default=1, metavar="N", help="worker processes (default: 1)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate a folder of predictions, write the results and print the scores.

    Args:
        argv: arguments without the program name; None for `sys.argv[1:]`.

    Raises:
        ConfigError: if an option is out of range.
        DataError: if files are missing or invalid, see `pair_files` and `read_pair`.
    """
    args = parse_args(argv)
    options = make_options(args)
    from densemtl.evaluation.boundary_files import pair_files

    pairs = pair_files(args.predictions, args.ground_truth, args.list)
    report = make_report(pairs, score_pairs(pairs, options, args.workers), options)
    write_json(args.json, report)
    if args.plot:
        plot_precision_recall(args.plot, report)
    print("  ".join(f"{name} {_format_score(report[name])}" for name in ("odsF", "oisF", "AP")))
    print(f"{len(pairs)} images; results: {args.json}")


def make_options(args: argparse.Namespace) -> BoundaryOptions:
    """Convert parsed arguments to options.

    Args:
        args: result of `parse_args`.

    Returns:
        The options of the protocol, with the changes from the command line.

    Raises:
        ConfigError: if an option is out of range.
    """
    if not 0 < args.max_dist < 1:
        raise ConfigError(
            f"--max-dist: must be between 0 and 1 (such as .0075), not {args.max_dist}"
        )
    protocol = Protocol(**(survey if args.no_nms else modern).BOUNDARY)
    if args.thresholds is not None:
        if args.thresholds < 1:
            raise ConfigError(f"--thresholds: must be at least 1, not {args.thresholds}")
        protocol = replace(protocol, thresholds=make_even_thresholds(args.thresholds))
    return BoundaryOptions(protocol, args.max_dist, args.regions)


def score_pairs(
    pairs: Sequence[BoundaryPair], options: BoundaryOptions, num_workers: int = 1
) -> list[BoundaryCounts]:
    """Count the boundary pixels of all pairs.

    Args:
        pairs: files of each image.
        options: how files are read and evaluated.
        num_workers: number of worker processes; below 2, everything runs in this process.

    Returns:
        Counts of each pair, shape (T, 4), in the order of `pairs`.
    """
    from densemtl.runtime.process_pool import OrderedProcessPool

    counts: list[BoundaryCounts] = []
    with OrderedProcessPool(
        partial(score_pair, options=options), counts.append, num_workers
    ) as pool:
        for pair in pairs:
            pool.submit(pair)
        pool.finish()
    return counts


def score_pair(pair: BoundaryPair, options: BoundaryOptions) -> BoundaryCounts:
    """Read one pair and count its boundary pixels.

    Args:
        pair: files of the image.
        options: how files are read and evaluated.

    Returns:
        Counts of shape (T, 4), see `count_boundary_matches`.
    """
    from densemtl.evaluation.boundary_files import read_pair
    from densemtl.metrics.boundary.counts import count_boundary_matches

    prediction, truths = read_pair(pair, options.regions)
    return count_boundary_matches(prediction, truths, options.protocol, options.max_distance)


def make_report(
    pairs: Sequence[BoundaryPair], counts: Sequence[BoundaryCounts], options: BoundaryOptions
) -> dict[str, Any]:
    """Summarize the counts of all images for the results file.

    Args:
        pairs: files of each image.
        counts: counts of each image, in the same order.
        options: how files were read and evaluated.

    Returns:
        A JSON-serializable dictionary with the scores in percent, the options, the
        precision-recall curve and the F-measure of each image.
    """
    from densemtl import __version__
    from densemtl.metrics.boundary.precision_recall import (
        compute_curve,
        compute_summary,
        select_best_counts,
    )

    total, bests = (
        np.sum(counts, axis=0),
        np.sum([select_best_counts(image_counts) for image_counts in counts], axis=0),
    )
    points, thresholds = compute_curve(total), options.protocol.thresholds
    at_best = int(points.f.argmax())
    f_scores = [compute_curve(select_best_counts(image_counts)).f for image_counts in counts]
    return {
        **{name: _nan_to_none(value) for name, value in compute_summary(total, bests).items()},
        "threshold": thresholds[at_best],
        "precision": 100 * float(points.precision[at_best]),
        "recall": 100 * float(points.recall[at_best]),
        "images": len(pairs),
        "options": asdict(options),
        "version": __version__,
        "curve": {name: [float(v) for v in line] for name, line in points._asdict().items()},
        "f_of_image": {
            pair.ground_truth.stem: 100 * float(f) for pair, f in zip(pairs, f_scores, strict=True)
        },
    }


def plot_precision_recall(file: Path, report: dict[str, Any]) -> None:
    """Plot the precision-recall curve over contours of equal F-measure.

    The image is written atomically.

    Args:
        file: image file to write.
        report: result of `make_report`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.subplots()
    recall, precision = np.meshgrid(np.linspace(0.01, 1, 100), np.linspace(0.01, 1, 100))
    f = 2 * precision * recall / (precision + recall)
    lines = axes.contour(recall, precision, f, np.arange(1, 10) / 10, colors="0.8", linewidths=0.8)
    axes.clabel(lines, fontsize=7)
    axes.plot(report["curve"]["recall"], report["curve"]["precision"])
    axes.plot(report["recall"] / 100, report["precision"] / 100, "o")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
    axes.set_title(
        f"odsF {_format_score(report['odsF'])}, AP {_format_score(report['AP'])}", fontsize=10
    )
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)


def _nan_to_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _format_score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
