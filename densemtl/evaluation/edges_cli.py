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

from densemtl.io.atomic import replacing, write_json
from densemtl.errors import ConfigError
from densemtl.metrics.boundary.protocols import MAX_DISTANCE, Protocol, even
from densemtl.metrics.protocols import modern, survey

if TYPE_CHECKING:
    from densemtl.evaluation.boundary_files import Pair
    from densemtl.metrics.boundary.counts import Counts


@dataclass(frozen=True)
class Rules:
    """How files are read and scored; see `Protocol`, `Boundary` and `read_truths`."""

    protocol: Protocol
    max_distance: float
    regions: bool


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
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
        DataError: see `pair_up` and `read_pair`.
    """
    args = parse(argv)
    rules = make_rules(args)
    from densemtl.evaluation.boundary_files import pair_up

    pairs = pair_up(args.predictions, args.ground_truth, args.list)
    report = make_report(pairs, score(pairs, rules, args.workers), rules)
    write_json(args.json, report)
    if args.plot:
        draw(args.plot, report)
    print("  ".join(f"{name} {_shown(report[name])}" for name in ("odsF", "oisF", "AP")))
    print(f"{len(pairs)} images; results: {args.json}")


def make_rules(args: argparse.Namespace) -> Rules:
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
        protocol = replace(protocol, thresholds=even(args.thresholds))
    return Rules(protocol, args.max_dist, args.regions)


def score(pairs: Sequence[Pair], rules: Rules, workers: int = 1) -> list[Counts]:
    """Counts of each pair, in order."""
    from densemtl.runtime.process_pool import InOrder

    counts: list[Counts] = []
    with InOrder(partial(score_pair, rules=rules), counts.append, workers) as work:
        for pair in pairs:
            work.put(pair)
        work.finish()
    return counts


def score_pair(pair: Pair, rules: Rules) -> Counts:
    """Read and count one pair; see `count`."""
    from densemtl.evaluation.boundary_files import read_pair
    from densemtl.metrics.boundary.counts import count

    prediction, truths = read_pair(pair, rules.regions)
    return count(prediction, truths, rules.protocol, rules.max_distance)


def make_report(pairs: Sequence[Pair], counts: Sequence[Counts], rules: Rules) -> dict[str, Any]:
    """What goes into the file: the numbers in percent, how they were made, curve and images."""
    from densemtl import __version__
    from densemtl.metrics.boundary.precision_recall import best, curve, summary

    total, bests = np.sum(counts, axis=0), np.sum([best(one) for one in counts], axis=0)
    points, thresholds = curve(total), rules.protocol.thresholds
    at_best = int(points.f.argmax())
    each = [curve(best(one)).f for one in counts]
    return {
        **{name: _finite(value) for name, value in summary(total, bests).items()},
        "threshold": thresholds[at_best],
        "precision": 100 * float(points.precision[at_best]),
        "recall": 100 * float(points.recall[at_best]),
        "images": len(pairs),
        "rules": asdict(rules),
        "version": __version__,
        "curve": {name: [float(v) for v in line] for name, line in points._asdict().items()},
        "f_of_image": {
            pair.truth.stem: 100 * float(f) for pair, f in zip(pairs, each, strict=True)
        },
    }


def draw(file: Path, report: dict[str, Any]) -> None:
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
    axes.set_title(f"odsF {_shown(report['odsF'])}, AP {_shown(report['AP'])}", fontsize=10)
    with replacing(file) as draft:
        figure.savefig(draft, dpi=110)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
