"""Comparison of an exported model with the original: differences of outputs, and run times."""

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
"""Function of the input of a model that returns its outputs in order."""

TOLERANCE = 1e-3
"""Maximum difference due to rounding, relative to the largest absolute value."""

MAX_CLASS_MISMATCH = 1e-3
"""Maximum fraction of pixels with another class; it may change if two are equally likely."""

REPEATS = 5
"""Number of timed runs."""


def make_reference_fn(network: ExportWrapper) -> InferenceFn:
    """Return the original model as a function of the same type as exported models.

    Args:
        network: the model, on the CPU and in evaluation mode.

    Returns:
        Function that runs the model.
    """

    @torch.inference_mode()
    def run(image: Tensor) -> list[NDArray[Any]]:
        return [output.numpy() for output in network(image)]

    return run


def compute_differences(
    network: ExportWrapper, exported: InferenceFn, images: Sequence[Tensor]
) -> dict[str, dict[str, float]]:
    """Compute the differences between the outputs of a model and of its exported version.

    Args:
        network: the model, on the CPU and in evaluation mode.
        exported: the exported model.
        images: inputs of the model.

    Returns:
        {task: differences over all inputs}. For class ids: `differ`, the fraction of pixels with
        another class. For real values: `max` and `mean` of the absolute differences, and `largest`,
        the largest absolute value of the original.
    """
    outputs: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    reference = make_reference_fn(network)
    for image in images:
        for name, expected, actual in zip(
            network.output_names, reference(image), exported(image), strict=True
        ):
            outputs.setdefault(name, []).append((expected, actual))
    return {name: _compare_outputs(pairs) for name, pairs in outputs.items()}


def _compare_outputs(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, float]:
    """Return the differences over pairs of expected and actual outputs."""
    expected, actual = (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))
    if expected.dtype.kind in "iu":
        return {"differ": float(np.mean(expected != actual))}
    difference = np.abs(expected.astype(np.float64) - actual)
    return {
        "max": float(difference.max()),
        "mean": float(difference.mean()),
        "largest": float(np.abs(expected).max()),
    }


def check_parity(differences: dict[str, dict[str, float]]) -> None:
    """Check that differences are small enough to be caused by rounding.

    Args:
        differences: output of `compute_differences`.

    Raises:
        ModelError: if a difference is larger than `TOLERANCE` or `MAX_CLASS_MISMATCH`.

    Example:
        >>> check_parity({"semseg": {"differ": 1e-4}})
        >>> check_parity({"semseg": {"differ": 0.5}})
        Traceback (most recent call last):
        densemtl.errors.ModelError: the exported model differs from the original: semseg: differ 0.5
    """
    for task, values in differences.items():
        if not _is_rounding(values):
            details = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            raise ModelError(f"the exported model differs from the original: {task}: {details}")


def check_finite(differences: dict[str, dict[str, float]]) -> None:
    """Check that outputs contain no infinite values and no NaN.

    Args:
        differences: output of `compute_differences`.

    Raises:
        ModelError: if an output is not finite.
    """
    for task, values in differences.items():
        if not all(math.isfinite(value) for value in values.values()):
            raise ModelError(f"an output of the exported model is not finite: {task}")


def _is_rounding(values: dict[str, float]) -> bool:
    if "differ" in values:
        return values["differ"] <= MAX_CLASS_MISMATCH
    return values["max"] <= TOLERANCE * max(values["largest"], 1)


def measure_ms(run: InferenceFn, image: Tensor) -> float:
    """Measure the CPU time of a run on one core, after a warm-up run.

    Args:
        run: the model.
        image: its input.

    Returns:
        Median of `REPEATS` runs in milliseconds.
    """
    run(image)
    return round(1e3 * statistics.median(_measure_times(run, image)), 3)


def _measure_times(run: InferenceFn, image: Tensor) -> Iterator[float]:
    for _ in range(REPEATS):
        started = time.process_time()
        run(image)
        yield time.process_time() - started


def choose_other_sizes(size: Size, multiple: int, dynamic_axes: str) -> list[Size]:
    """Choose the sizes of single images on which a model is compared in addition to a batch.

    Args:
        size: (height, width) that was traced, in pixels.
        multiple: number by which height and width must be divisible.
        dynamic_axes: "batch and size", "batch" or "nothing".

    Returns:
        `size` if the batch size is dynamic, and a larger size if the image size is dynamic.

    Example:
        >>> choose_other_sizes((64, 96), 32, "batch and size")
        [(64, 96), (96, 160)]
    """
    larger = size[0] + multiple, size[1] + 2 * multiple
    return {"batch and size": [size, larger], "batch": [size], "nothing": []}[dynamic_axes]


def round_up(size: Size, multiple: int) -> Size:
    """Round a size up to multiples of a number.

    Args:
        size: (height, width) in pixels.
        multiple: number by which height and width must be divisible.

    Returns:
        The rounded size.

    Example:
        >>> round_up((30, 64), 32)
        (32, 64)
    """
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple
