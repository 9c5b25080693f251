"""Losses whose gradient is taken while they are computed.

What a loss of full-size maps needs for its backward pass is many times larger than the logits that
a head makes. Taken at once, the gradient of these is all that is kept, and the maps of one task, or
of one band of it, are gone before those of the next come. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

Index = tuple[slice, ...] | EllipsisType

LossPart = tuple[Index, Callable[[Tensor], Tensor]]
"""Where some logits lie, and their scalar loss."""


def compute_loss_with_eager_gradient(logits: Tensor, parts: Sequence[LossPart]) -> Tensor:
    """The sum of the losses of parts of the logits, which may overlap; a scalar with a graph.

    Args:
        logits: of any shape, in the type that their gradient is to be kept in.
        parts: a loss reads nothing else that has a gradient.
    """
    total: Tensor = _EagerGradient.apply(logits, parts)
    return total


class _EagerGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, parts: Sequence[LossPart]) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return torch.stack([loss(logits[index]) for index, loss in parts]).sum()
        gradient = torch.zeros_like(logits)
        values = []
        for index, loss in parts:
            leaf = logits[index].detach().requires_grad_()
            with torch.enable_grad():
                value = loss(leaf)
            gradient[index].add_(*torch.autograd.grad(value, leaf))
            values.append(value.detach())
        ctx.save_for_backward(gradient)
        return torch.stack(values).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None
