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

from densemtl.errors import ModelError
from densemtl.export.wrapper import ExportNetwork
from densemtl.backbones.timm_factory import brief
from densemtl.export.swin_tracing import countable

BOTH = "batch and size"

CELLS = (33, 34)
"""Height and width of the coarsest level while the size is free: above the widest windows' side.

What occurs once while it is traced, be it a pixel or a window, the tracer takes for a constant.
"""

LIMIT = 120.0
"""Seconds of CPU after which an attempt to leave something free is given up."""

AGAIN = 1.0
"""Seconds until it is told again, should torch have swallowed it."""

Shapes = dict[int, Any]
"""{dimension of the image: what it may be}."""


@dataclass(frozen=True)
class Traced:
    """A graph and what it leaves free.

    Attributes:
        program: takes an image, gives a tuple.
        free: "batch and size", "batch" or "nothing".
        reasons: {what was tried to be left free: why it cannot be}.
    """

    program: ExportedProgram
    free: str
    reasons: Mapping[str, str]


def trace(network: ExportNetwork, image: Tensor) -> Traced:
    """Trace with batch, height and width free; failing that in `LIMIT`, the batch; else nothing.

    Args:
        network: in evaluation mode.
        image: as it takes; more than one, of sides divisible by `network.model.multiple`.

    Raises:
        ModelError: it cannot be traced at all; tells why.
    """
    reasons: dict[str, str] = {}
    for free, shapes in _attempts(network.model.multiple).items():
        shown = _enlarged(image, network.model.multiple) if free == BOTH else image
        try:
            program = _attempt(network, shown, shapes)
        except Exception as error:  # of torch's tracer, which raises many types
            reasons[free] = brief(error)
        else:
            return Traced(program, free, reasons)
    raise ModelError(f"the network cannot be traced: {reasons['nothing']}")


def _attempt(network: ExportNetwork, image: Tensor, shapes: Shapes | None) -> ExportedProgram:
    if shapes is None:
        with torch.no_grad(), countable(network):
            return torch.export.export(network, (image,))
    with torch.no_grad(), countable(network), _limited(LIMIT):
        return torch.export.export(network, (image,), dynamic_shapes=(shapes,))


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Give up what takes the process longer; sizes can be such that a single one takes torch hours.

    Signals reach the main thread alone: elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: Any) -> None:
        raise ModelError(f"torch had not traced it after {seconds:g} s")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _attempts(multiple: int) -> dict[str, Shapes | None]:
    rows, columns = (multiple * Dim(side, min=1) for side in ("rows", "columns"))
    batch = Dim("batch", min=1)
    return {
        BOTH: {0: batch, 2: rows, 3: columns},
        "batch": {0: batch},
        "nothing": None,
    }


def _enlarged(image: Tensor, multiple: int) -> Tensor:
    """An image of `CELLS`: no more than its shape is looked at."""
    height, width = (multiple * cells for cells in CELLS)
    return image.new_zeros(*image.shape[:2], height, width)
