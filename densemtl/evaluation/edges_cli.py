"""The boundary F-measure of stored predictions, without the network that made them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from densemtl.errors import ConfigError
from densemtl.io.atomic import atomic_write, write_json
from densemtl.metrics.boundary.protocols import MAX_DISTANCE, Protocol, make_even_thresholds
from densemtl.metrics.protocols import modern, survey

if TYPE_CHECKING:
    from densemtl.evaluation.boundary_files import BoundaryPair
    from densemtl.metrics.boundary.counts import BoundaryCounts


@dataclass(frozen=True)
class BoundaryOptions:
    """How files are read and scored; see `Protocol`, `Boundary` and `read_ground_truths`."""

    protocol: Protocol
    max_distance: float
    regions: bool


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="evaluate.py edges", description=__doc__)
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help=".png (8, 16 bit) or .npy")
    add("--ground-truth", type=Path, required=True, metavar="DIR", help=".png, .npy or .mat")
    add("--list", type=Path, metavar="FILE", help="names of the images to score, one a line")
    add("--json", type=Path, required=True, metavar="OUT", help="where the results go")
    add("--plot", type=Path, metavar="PNG", help="draw the precision-recall curve")
    text = "share of the diagonal within which pixels match (default: %(default)s; NYUD: .011)"
    add("--max-dist", type=float, default=MAX_DISTANCE, metavar="D", help=text)
    add("--thresholds", type=int, metavar="N", help="evenly spaced (default: the protocol's)")
    text = "binarise the maps as they are (the survey's protocol); by default only ridges stay"
    add("--no-nms", action="store_true", help=text)
    add("--regions", action="store_true", help="take boundary maps too for maps of regions")
    add("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Score two folders, write the results, print the numbers.

    Raises:
        ConfigError: an option out of range.
        DataError: see `pair_files` and `read_pair`.
    """
    args = parse_args(argv)
    rules = make_options(args)
    from densemtl.evaluation.boundary_files import pair_files

    pairs = pair_files(args.predictions, args.ground_truth, args.list)
    report = make_report(pairs, score_pairs(pairs, rules, args.workers), rules)
    write_json(args.json, report)
    if args.plot:
        plot_precision_recall(args.plot, report)
    print("  ".join(f"{name} {_format_score(report[name])}" for name in ("odsF", "oisF", "AP")))
    print(f"{len(pairs)} images; results: {args.json}")


def make_options(args: argparse.Namespace) -> BoundaryOptions:
    """What the command line asks for.

    Raises:
        ConfigError: an option out of range.
    """
    if not 0 < args.max_dist < 1:
        raise ConfigError(f"--max-dist: {args.max_dist} must lie between 0 and 1, such as .0075")
    protocol = Protocol(**(survey if args.no_nms else modern).BOUNDARY)
    if args.thresholds is not None:
        if args.thresholds < 1:
            raise ConfigError(f"--thresholds: {args.thresholds} must be at least 1")
        protocol = replace(protocol, thresholds=make_even_thresholds(args.thresholds))
    return BoundaryOptions(protocol, args.max_dist, args.regions)


def score_pairs(
    pairs: Sequence[BoundaryPair], options: BoundaryOptions, num_workers: int = 1
) -> list[BoundaryCounts]:
    """Counts of each pair, in order."""
    from densemtl.runtime.process_pool import OrderedProcessPool

    counts: list[BoundaryCounts] = []
    with OrderedProcessPool(
        partial(score_pair, options=options), counts.append, num_workers
    ) as work:
        for pair in pairs:
            work.submit(pair)
        work.finish()
    return counts


def score_pair(pair: BoundaryPair, options: BoundaryOptions) -> BoundaryCounts:
    """Read and count one pair; see `count_boundary_matches`."""
    from densemtl.evaluation.boundary_files import read_pair
    from densemtl.metrics.boundary.counts import count_boundary_matches

    prediction, truths = read_pair(pair, options.regions)
    return count_boundary_matches(prediction, truths, options.protocol, options.max_distance)


def make_report(
    pairs: Sequence[BoundaryPair], counts: Sequence[BoundaryCounts], options: BoundaryOptions
) -> dict[str, Any]:
    """What goes into the file: the numbers in percent, how they were made, curve and images."""
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
        "rules": asdict(options),
        "version": __version__,
        "curve": {name: [float(v) for v in line] for name, line in points._asdict().items()},
        "f_of_image": {
            pair.ground_truth.stem: 100 * float(f) for pair, f in zip(pairs, f_scores, strict=True)
        },
    }


def plot_precision_recall(file: Path, report: dict[str, Any]) -> None:
    """The precision-recall curve over lines of equal F, as a picture, whole or not at all."""
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
