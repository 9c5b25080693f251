"""Losses whose gradient is computed in the forward pass.

The backward pass of a loss of full-size maps needs many times more memory than the low-resolution
logits of a head. If the gradient is computed in the forward pass, only the gradient of these logits
is kept, and the maps of one task or band are freed before those of the next one are computed.
Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

Index = tuple[slice, ...] | EllipsisType

LossPart = tuple[Index, Callable[[Tensor], Tensor]]
"""Index of a part of the logits, and the function that computes the scalar loss of this part."""


def compute_loss_with_eager_gradient(logits: Tensor, parts: Sequence[LossPart]) -> Tensor:
    """Compute the sum of the losses of parts of the logits, and its gradient.

    Args:
        logits: logits of any shape, in the dtype in which their gradient is kept.
        parts: index and loss function of each part. Parts may overlap. A loss function must not use
            any other tensor that requires a gradient.

    Returns:
        The sum, a scalar with a graph to the logits.

    Example:
        >>> import torch
        >>> logits = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> parts = [((slice(0, 2),), torch.sum), ((slice(1, 3),), lambda x: x.square().sum())]
        >>> loss = compute_loss_with_eager_gradient(logits, parts)
        >>> loss.backward()
        >>> loss.item(), logits.grad
        (16.0, tensor([1., 5., 6.]))
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
