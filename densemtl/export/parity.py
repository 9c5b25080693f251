"""Whether an exported network gives what the original gives, and how fast."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densemtl.errors import ModelError
from densemtl.export.wrapper import ExportWrapper
from densemtl.types import Size

InferenceFn = Callable[[Tensor], Sequence[NDArray[Any]]]
"""An image as the network takes it -> its outputs in order."""

TOLERANCE = 1e-3
"""Largest difference, relative to the largest value, that is rounding."""

MAX_CLASS_MISMATCH = 1e-3
"""Share of the pixels that may get another class, where two are equally likely."""

REPEATS = 5


def make_reference_fn(network: ExportWrapper) -> InferenceFn:
    """The network itself."""

    @torch.inference_mode()
    def run(image: Tensor) -> list[NDArray[Any]]:
        return [output.numpy() for output in network(image)]

    return run


def compute_differences(
    network: ExportWrapper, exported: InferenceFn, images: Sequence[Tensor]
) -> dict[str, dict[str, float]]:
    """How far outputs are apart, over all images: {task: ..}.

    Of class ids `differ`, the share of pixels with another class; of numbers `max` and `mean` of
    the absolute differences, and `largest`, the largest absolute value of the original.
    """
    outputs: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    theirs = make_reference_fn(network)
    for image in images:
        for name, expected, actual in zip(
            network.output_names, theirs(image), exported(image), strict=True
        ):
            outputs.setdefault(name, []).append((expected, actual))
    return {name: _compare_outputs(pairs) for name, pairs in outputs.items()}


def _compare_outputs(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, float]:
    expected, actual = (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))
    if expected.dtype.kind in "iu":
        return {"differ": float(np.mean(expected != actual))}
    apart = np.abs(expected.astype(np.float64) - actual)
    return {
        "max": float(apart.max()),
        "mean": float(apart.mean()),
        "largest": float(np.abs(expected).max()),
    }


def check_parity(differences: dict[str, dict[str, float]]) -> None:
    """Refuse what is more than rounding.

    Raises:
        ModelError: names the task and the difference.
    """
    for task, values in differences.items():
        if not _is_rounding(values):
            details = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            raise ModelError(f"the exported network gives something else: {task}: {details}")


def check_finite(differences: dict[str, dict[str, float]]) -> None:
    """Refuse what is no number.

    Raises:
        ModelError: names the task.
    """
    for task, values in differences.items():
        if not all(math.isfinite(value) for value in values.values()):
            raise ModelError(f"its output is not finite: {task}")


def _is_rounding(values: dict[str, float]) -> bool:
    if "differ" in values:
        return values["differ"] <= MAX_CLASS_MISMATCH
    return values["max"] <= TOLERANCE * max(values["largest"], 1)


def measure_ms(run: InferenceFn, image: Tensor) -> float:
    """CPU time of one run on one core: the median of a few, after a first one."""
    run(image)
    return round(1e3 * statistics.median(_measure_times(run, image)), 3)


def _measure_times(run: InferenceFn, image: Tensor) -> Iterator[float]:
    for _ in range(REPEATS):
        started = time.process_time()
        run(image)
        yield time.process_time() - started


def choose_other_sizes(size: Size, multiple: int, dynamic_axes: str) -> list[Size]:
    """Of single images to look at besides a batch of `size`: that size and a larger one, if free.

    Args:
        size: (height, width) that was traced.
        multiple: divides all heights and widths.
        dynamic_axes: "batch and size", "batch" or "nothing".
    """
    larger = size[0] + multiple, size[1] + 2 * multiple
    return {"batch and size": [size, larger], "batch": [size], "nothing": []}[dynamic_axes]


def round_up(size: Size, multiple: int) -> Size:
    """Sides divisible by `multiple`."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple
