"""Networks as graphs of torch.export, with as many free sizes as they allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from densemtl.errors import ModelError
from densemtl.export.network import ExportNetwork
from densemtl.models.recipe import brief

BOTH = "batch and size"

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
        try:
            with torch.no_grad():
                dynamic = None if shapes is None else (shapes,)
                shown = _enlarged(image, network.model.multiple) if free == BOTH else image
                program = torch.export.export(network, (shown,), dynamic_shapes=dynamic)
        except Exception as error:  # of torch's tracer, which raises many types
            reasons[free] = brief(error)
        else:
            return Traced(program, free, reasons)
    raise ModelError(f"the network cannot be traced: {reasons['nothing']}")


def _attempts(multiple: int) -> dict[str, Shapes | None]:
    rows, columns = (multiple * Dim(side, min=1) for side in ("rows", "columns"))
    batch = Dim("batch", min=1)
    return {
        BOTH: {0: batch, 2: rows, 3: columns},
        "batch": {0: batch},
        "nothing": None,
    }


def _enlarged(image: Tensor, multiple: int) -> Tensor:
    """An image of sides that the tracer cannot take for constants, as it does a side of one."""
    batch, channels, height, width = image.shape
    return image.new_zeros(batch, channels, max(height, 2 * multiple), max(width, 3 * multiple))
