#!/usr/bin/env python
"""Measure the cost of the boundary F-measure: CPU seconds per image, and share of each part."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.metrics.boundary.protocols import Protocol

T = TypeVar("T")
FloatMap = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One image to score.

    Attributes:
        kind: description of the image.
        probability: predicted edge probability, shape (H, W).
        truth: true boundaries, shape (H, W).
    """

    kind: str
    probability: FloatMap
    truth: Mask


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(425, 560),
        metavar=("H", "W"),
        help="size of the images in pixels (default: 425 560)",
    )
    parser.add_argument(
        "--max-dist",
        type=float,
        default=0.011,
        help="maximum matching distance as a fraction of the image diagonal (default: 0.011)",
    )
    parser.add_argument(
        "--maps", type=Path, metavar="DIR", help="folder of edge maps to jitter and blur"
    )
    parser.add_argument(
        "--images", type=int, default=3, help="number of edge maps to use (default: 3)"
    )
    parser.add_argument(
        "--hard", action="store_true", help="also measure patterns that are slow by design"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print one table."""
    args = parse_args(argv)
    cv2.setNumThreads(1)
    from rich import print as show
    from rich.table import Table

    from densemtl.metrics.boundary.protocols import Protocol
    from densemtl.metrics.protocols import modern, survey

    protocols = {
        "survey": Protocol(**survey.BOUNDARY),  # type: ignore[arg-type]
        "modern": Protocol(**modern.BOUNDARY),  # type: ignore[arg-type]
    }
    table = Table(title=f"{args.size[0]}x{args.size[1]}, distance {args.max_dist}, one core")
    for column in ("image", "protocol", "s", "nms", "thinning", "matching", "odsF"):
        table.add_column(column)
    for case in iter_cases(args):
        for name, protocol in protocols.items():
            table.add_row(case.kind, name, *measure_case(case, protocol, args.max_dist))
    show(table)


def measure_case(case: Case, protocol: Protocol, max_distance: float) -> list[str]:
    """Return the cells of a row: total seconds, share of each part, and odsF."""
    from densemtl.metrics.boundary.counts import count_boundary_matches
    from densemtl.metrics.boundary.non_max_suppression import suppress_non_maxima
    from densemtl.metrics.boundary.precision_recall import compute_summary, select_best_counts
    from densemtl.ops.thinning import thin

    probability = case.probability
    whole, counts = measure_seconds(
        lambda: count_boundary_matches(probability, [case.truth], protocol, max_distance)
    )
    ridges, strength = measure_seconds(
        lambda: suppress_non_maxima(probability) if protocol.nms else probability
    )
    thinning, _ = measure_seconds(lambda: [thin(strength > level) for level in protocol.thresholds])
    parts = ridges, thinning, max(whole - ridges - thinning, 0)
    shares = [f"{part / whole:.0%}" for part in parts]
    return [
        f"{whole:.2f}",
        *shares,
        f"{compute_summary(counts, select_best_counts(counts))['odsF']:.1f}",
    ]


def measure_seconds(work: Callable[[], T]) -> tuple[float, T]:
    """Return the CPU time of this process for some work in seconds, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def iter_cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield realistic cases, and slow artificial patterns with `--hard`."""
    rng = np.random.default_rng(0)
    size = tuple(args.size)
    for regions in (20, 60, 200):
        truth = make_random_boundaries(rng, size, regions)
        yield Case(f"{regions} regions", simulate_prediction(rng, truth), truth)
    files = sorted(args.maps.glob("*.png"))[: args.images] if args.maps else []
    for file in files:
        truth = load_edge_map(file, size)
        yield Case(file.name, simulate_prediction(rng, truth), truth)
    if args.hard:
        yield from iter_hard_cases(rng, size)


def make_random_boundaries(rng: np.random.Generator, size: tuple[int, int], regions: int) -> Mask:
    """Return the boundaries of the Voronoi cells of random points."""
    from densemtl.ops.region_boundaries import find_region_boundaries

    seeds = np.ones(size, np.uint8)
    seeds[tuple(rng.integers(0, size, (regions, 2)).T)] = 0
    _, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5)
    return find_region_boundaries(cells)


def load_edge_map(file: Path, size: tuple[int, int]) -> Mask:
    """Load an edge map, resize it and derive region boundaries, as the modern protocol on NYUD."""
    from densemtl.io.arrays import read_array
    from densemtl.ops.region_boundaries import find_region_boundaries

    stored = cv2.resize(read_array(file), size[::-1], interpolation=cv2.INTER_NEAREST)
    return find_region_boundaries(stored)


def simulate_prediction(rng: np.random.Generator, truth: Mask) -> FloatMap:
    """Simulate a prediction: displaced, blurred boundaries of varying strength, and false ones."""
    size = truth.shape
    offsets = [2.5 * make_smooth_noise(rng, size, 12) for _ in range(2)]
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    moved = cv2.remap(truth.astype(np.float32), x + offsets[0], y + offsets[1], cv2.INTER_LINEAR)
    blurred = cv2.GaussianBlur(moved, (0, 0), 2)
    clutter = np.exp(-((make_smooth_noise(rng, size, 6) / 0.15) ** 2))
    strength = 1 / (1 + np.exp(-make_smooth_noise(rng, size, 25)))
    mixed = 0.8 * strength * blurred / blurred.max() + 0.35 * (1 - strength) * clutter
    probability: FloatMap = np.clip(mixed / mixed.max(), 0, 1).astype(np.float32)
    return probability


def make_smooth_noise(rng: np.random.Generator, size: tuple[int, ...], sigma: float) -> FloatMap:
    """Return smooth noise with mean 0 and standard deviation 1."""
    noise = cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), sigma)
    normalized: FloatMap = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return normalized


def iter_hard_cases(rng: np.random.Generator, size: tuple[int, int]) -> Iterator[Case]:
    """Yield dense predictions, each with ordinary boundaries and with dense patterns as truth."""
    from densemtl.ops.thinning import thin

    y, x = np.indices(size)
    right = x / size[1]
    noise = rng.random(size)
    probabilities = {
        "noise": noise,
        "noise, stronger to the right": noise * right,
        "waves": 0.5 + 0.5 * np.sin(2.1 * x) * np.sin(1.7 * y),
        "rows from right to left": np.where(y % 3 == 0, 0.05 + 0.9 * right, 0),
    }
    truths = {
        "60 regions": make_random_boundaries(rng, size, 60),
        "columns, every 2nd": x % 2 == 0,
        "halves of rows": np.where(x < size[1] // 2, y % 2 == 0, y % 4 == 0),
        "ever denser columns": np.cumsum(0.2 + 0.25 * right, 1) % 1 < 0.2 + 0.25 * right,
        "noise": thin(rng.random(size) < 0.5),
        "all": np.ones(size, bool),
    }
    for prediction, probability in probabilities.items():
        for name, truth in truths.items():
            yield Case(f"{prediction} on {name}", probability.astype(np.float32), truth)


if __name__ == "__main__":
    cli.run_main(main)
