"""Networks as graphs of torch.export, with as many free sizes as they allow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from densemtl.errors import ModelError
from densemtl.export.network import ExportNetwork
from densemtl.models.recipe import brief
from densemtl.models.windows import countable

BOTH = "batch and size"

CELLS = (33, 34)
"""Height and width of the coarsest level while the size is free: above the widest windows' side.

What occurs once while it is traced, be it a pixel or a window, the tracer takes for a constant.
"""

LIMIT = 120.0
"""Seconds of CPU after which an attempt to leave something free is given up."""

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
    """Trace with batch, height and width free; else the batch alone; else nothing.

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
    with torch.no_grad(), countable(network), _limited(network, LIMIT):
        return torch.export.export(network, (image,), dynamic_shapes=(shapes,))


@contextmanager
def _limited(network: nn.Module, seconds: float) -> Iterator[None]:
    """Give up, before a module is traced, what has taken longer: some sizes take torch hours."""
    end = time.process_time() + seconds

    def look(module: nn.Module, inputs: Any) -> None:
        if time.process_time() > end:
            raise ModelError(f"torch had not traced it after {seconds:g} s")

    handles = [module.register_forward_pre_hook(look) for module in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
