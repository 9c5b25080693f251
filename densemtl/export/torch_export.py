"""Tracing of models by torch.export, with as many dynamic axes as possible."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from densemtl.errors import ModelError, shorten_error
from densemtl.export.same_padding_tracing import patch_same_padding_for_export
from densemtl.export.swin_tracing import patch_swin_for_export
from densemtl.export.wrapper import ExportWrapper

BATCH_AND_SIZE = "batch and size"
"""Name of the dynamic axes batch, height and width."""

TRACE_FEATURE_SIZE = (33, 34)
"""Height and width of the coarsest level of the image that is traced with a dynamic size.

They are larger than the side of the largest attention windows, because the tracer treats a number
of pixels or windows that is 1 as a constant.
"""

TIME_LIMIT = 120.0
"""CPU seconds after which an attempt to trace with dynamic axes is stopped."""

RETRY_SECONDS = 1.0
"""CPU seconds after which the time limit raises its exception again, if torch suppressed it."""

DynamicShapes = dict[int, Any]
"""{dimension of the image: its range}."""


@dataclass(frozen=True)
class TracedGraph:
    """Graph of a model, and its dynamic axes.

    Attributes:
        program: the graph, from a batch of images to a tuple of outputs.
        dynamic_axes: "batch and size", "batch" or "nothing".
        reasons: {dynamic axes that were tried: reason why tracing failed}.
    """

    program: ExportedProgram
    dynamic_axes: str
    reasons: Mapping[str, str]


def trace(network: ExportWrapper, image: Tensor) -> TracedGraph:
    """Trace a model with as many dynamic axes as possible.

    The first attempt that succeeds within `TIME_LIMIT` is returned: with dynamic batch size, height
    and width, with dynamic batch size, or without dynamic axes.

    Args:
        network: the model, in evaluation mode.
        image: input of the model: two or more images whose height and width are divisible by
            `network.model.size_divisor`.

    Returns:
        The graph.

    Raises:
        ModelError: if the model cannot be traced even without dynamic axes.
    """
    reasons: dict[str, str] = {}
    for axes, shapes in _list_dynamic_shapes(network.model.size_divisor).items():
        example = (
            _make_large_image(image, network.model.size_divisor)
            if axes == BATCH_AND_SIZE
            else image
        )
        try:
            program = _export_program(network, example, shapes)
        except Exception as error:  # torch's tracer raises exceptions of many types
            reasons[axes] = shorten_error(error)
        else:
            return TracedGraph(program, axes, reasons)
    raise ModelError(f"the model cannot be traced: {reasons['nothing']}")


def _export_program(
    network: ExportWrapper, image: Tensor, shapes: DynamicShapes | None
) -> ExportedProgram:
    """Trace a model; the time limit applies only to attempts with dynamic axes."""
    with (
        torch.no_grad(),
        silence_logging(),
        patch_swin_for_export(network),
        patch_same_padding_for_export(network),
    ):
        if shapes is None:
            return torch.export.export(network, (image,))
        with _limit_time(TIME_LIMIT):
            return torch.export.export(network, (image,), dynamic_shapes=(shapes,))


@contextmanager
def silence_logging() -> Iterator[None]:
    """Suppress log messages of torch and onnxruntime, which are about their internal steps.

    Errors are raised as exceptions.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _limit_time(seconds: float) -> Iterator[None]:
    """Raise a `ModelError` if the code inside this context takes more CPU seconds.

    Without a limit, torch can take hours for a single dynamic size. Signals reach only the main
    thread, so there is no limit in other threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_timeout(*_: Any) -> None:
        raise ModelError(f"torch did not finish tracing within {seconds:g} s")

    before = signal.signal(signal.SIGPROF, raise_timeout)
    signal.setitimer(signal.ITIMER_PROF, seconds, RETRY_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _list_dynamic_shapes(multiple: int) -> dict[str, DynamicShapes | None]:
    """Return the dynamic axes to try, in this order, with the range of each dimension."""
    rows, columns = (multiple * Dim(side, min=1) for side in ("rows", "columns"))
    batch = Dim("batch", min=1)
    return {
        BATCH_AND_SIZE: {0: batch, 2: rows, 3: columns},
        "batch": {0: batch},
        "nothing": None,
    }


def _make_large_image(image: Tensor, multiple: int) -> Tensor:
    """Return images of zeros of `TRACE_FEATURE_SIZE`; tracing depends only on their shape."""
    height, width = (multiple * cells for cells in TRACE_FEATURE_SIZE)
    return image.new_zeros(*image.shape[:2], height, width)
