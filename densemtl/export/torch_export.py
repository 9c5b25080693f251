"""Networks as graphs of torch.export, with as many free sizes as they allow."""

from __future__ import annotations

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
from densemtl.export.swin_tracing import patch_swin_for_export
from densemtl.export.wrapper import ExportWrapper

BATCH_AND_SIZE = "batch and size"

TRACE_FEATURE_SIZE = (33, 34)
"""Height and width of the coarsest level while the size is free: above the widest windows' side.

What occurs once while it is traced, be it a pixel or a window, the tracer takes for a constant.
"""

TIME_LIMIT = 120.0
"""Seconds of CPU after which an attempt to leave something free is given up."""

RETRY_SECONDS = 1.0
"""Seconds until it is told again, should torch have swallowed it."""

DynamicShapes = dict[int, Any]
"""{dimension of the image: what it may be}."""


@dataclass(frozen=True)
class TracedGraph:
    """A graph and what it leaves free.

    Attributes:
        program: takes an image, gives a tuple.
        dynamic_axes: "batch and size", "batch" or "nothing".
        reasons: {what was tried to be left free: why it cannot be}.
    """

    program: ExportedProgram
    dynamic_axes: str
    reasons: Mapping[str, str]


def trace(network: ExportWrapper, image: Tensor) -> TracedGraph:
    """Trace with batch, height and width free, or the batch, or nothing, in `TIME_LIMIT` each.

    Args:
        network: in evaluation mode.
        image: as it takes; more than one, of sides divisible by `network.model.size_divisor`.

    Raises:
        ModelError: it cannot be traced at all; tells why.
    """
    reasons: dict[str, str] = {}
    for free, shapes in _list_dynamic_shapes(network.model.size_divisor).items():
        shown = (
            _make_large_image(image, network.model.size_divisor)
            if free == BATCH_AND_SIZE
            else image
        )
        try:
            program = _export_program(network, shown, shapes)
        except Exception as error:  # of torch's tracer, which raises many types
            reasons[free] = shorten_error(error)
        else:
            return TracedGraph(program, free, reasons)
    raise ModelError(f"the network cannot be traced: {reasons['nothing']}")


def _export_program(
    network: ExportWrapper, image: Tensor, shapes: DynamicShapes | None
) -> ExportedProgram:
    if shapes is None:
        with torch.no_grad(), patch_swin_for_export(network):
            return torch.export.export(network, (image,))
    with torch.no_grad(), patch_swin_for_export(network), _limit_time(TIME_LIMIT):
        return torch.export.export(network, (image,), dynamic_shapes=(shapes,))


@contextmanager
def _limit_time(seconds: float) -> Iterator[None]:
    """Give up what takes the process longer; sizes can be such that a single one takes torch hours.

    Signals reach the main thread alone: elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: Any) -> None:
        raise ModelError(f"torch had not traced it after {seconds:g} s")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds, RETRY_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _list_dynamic_shapes(multiple: int) -> dict[str, DynamicShapes | None]:
    rows, columns = (multiple * Dim(side, min=1) for side in ("rows", "columns"))
    batch = Dim("batch", min=1)
    return {
        BATCH_AND_SIZE: {0: batch, 2: rows, 3: columns},
        "batch": {0: batch},
        "nothing": None,
    }


def _make_large_image(image: Tensor, multiple: int) -> Tensor:
    """An image of `CELLS`: no more than its shape is looked at."""
    height, width = (multiple * cells for cells in TRACE_FEATURE_SIZE)
    return image.new_zeros(*image.shape[:2], height, width)
