"""Rounding of weights to half precision, which halves the size of a published model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from densemtl.errors import CheckpointError

STATISTICS = ("running_mean", "running_var")
"""Last part of the names of statistics of normalization layers. They stay in single precision:
variances differ by many orders of magnitude, and are divided by."""

_LIMITS = torch.finfo(torch.float16)


def round_to_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round weights to half precision where this changes them by at most about 0.05 %.

    Statistics of normalization layers stay in single precision, and so do tensors all of whose
    values are below the smallest normal number of float16, 6e-5. Rounding twice changes nothing.

    Args:
        tensors: {name in the state dict: tensor}.

    Returns:
        The tensors, those of floats as float16 or float32.

    Raises:
        CheckpointError: if a value is above the maximum of float16, 65504; names the tensor.

    Example:
        >>> rounded = round_to_half({"weight": torch.tensor([0.1]), "bias": torch.tensor([1e-6])})
        >>> {name: (value.dtype, value.item()) for name, value in rounded.items()}
        {'weight': (torch.float16, 0.0999755859375), 'bias': (torch.float32, 9.999999974752427e-07)}
    """
    return {name: _round(name, tensor) for name, tensor in tensors.items()}


def _round(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float()
    largest = tensor.abs().max().item() if tensor.numel() else 0.0
    if name.rpartition(".")[2] in STATISTICS or 0 < largest < _LIMITS.smallest_normal:
        return tensor
    if not largest <= _LIMITS.max:
        raise CheckpointError(
            f"{name}: a value of {largest:.3g} is outside the range of half precision"
            f" (-{_LIMITS.max:g} to {_LIMITS.max:g}); save the weights without half precision"
        )
    return tensor.half()
