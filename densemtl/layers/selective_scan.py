"""Selective scan of Mamba (Gu and Dao 2023): a recurrence whose coefficients vary."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from densemtl.layers.chunked_scan import scan_chunks


def selective_scan(
    inputs: Tensor,
    steps: Tensor,
    decay: Tensor,
    write: Tensor,
    read: Tensor,
    *,
    chunk: int | None = None,
) -> Tensor:
    """Run a linear recurrence whose coefficients depend on the position.

    With the state h of N numbers per channel, which is 0 before the first position,

        h_l = exp(steps_l * decay) h_{l-1} + steps_l * write_l * inputs_l
        output_l = sum over the states of read_l * h_l

    Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, equation 2
    with the discretization of section 2. A CPU computes one position after the other. On a GPU, and
    in compiled code, the sequence is cut into chunks: a first pass computes the last state of all
    chunks at once, each from a state of 0; these states are then passed on from chunk to chunk, and
    a second pass computes all states. Only products of decays are computed, never quotients, so
    that strong decay is stable. The backward pass computes the states again. Exported graphs
    contain a loop over the positions.

    The kernel of the package `mamba_ssm` is used on a GPU where that package is installed. It was
    not tested on a GPU.

    Args:
        inputs: input x (B, K, E, L) of K independent directions with E channels and L positions.
        steps: positive step sizes (B, K, E, L).
        decay: negative decay rates (K, E, N) of N states.
        write: weights (B, K, N, L) with which inputs are added to the states.
        read: weights (B, K, N, L) with which states are added to the output.
        chunk: number of positions per chunk, which only affects time; None for a single chunk on a
            CPU, and for the square root of the number of positions elsewhere.

    Returns:
        Output (B, K, E, L).

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 1, 1, 3)
        >>> no_memory = torch.full((1, 1, 1), -torch.inf)
        >>> selective_scan(2 * ones, ones, no_memory, ones, ones)
        tensor([[[[2., 2., 2.]]]])
        >>> selective_scan(2 * ones, ones, torch.zeros(1, 1, 1), ones, ones)
        tensor([[[[2., 4., 6.]]]])
    """
    if inputs.is_meta:  # only shapes are computed
        return inputs * steps
    if torch.compiler.is_exporting():
        return _scan_positions(inputs, steps, decay, write, read)
    if inputs.is_cuda and inputs.dtype == torch.float32 and not torch.compiler.is_compiling():
        kernel = find_kernel()
        if kernel is not None:
            return scan_by_kernel(kernel, inputs, steps, decay, write, read)
    if chunk is None:
        one_chunk = inputs.device.type == "cpu" and not torch.compiler.is_compiling()
        chunk = inputs.shape[3] if one_chunk else math.isqrt(inputs.shape[3] - 1) + 1
    return scan_chunks(inputs, steps, decay, write, read, chunk)


@cache
def find_kernel() -> Callable[..., Tensor] | None:
    """Return the scan of the package `mamba_ssm`, or None where it is not installed."""
    if find_spec("mamba_ssm") is None:
        return None
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    kernel: Callable[..., Tensor] = selective_scan_fn
    return kernel


def scan_by_kernel(
    kernel: Callable[..., Tensor],
    inputs: Tensor,
    steps: Tensor,
    decay: Tensor,
    write: Tensor,
    read: Tensor,
) -> Tensor:
    """Run `selective_scan` by a kernel, whose directions are groups of channels.

    Args:
        kernel: function of inputs (B, K E, L), step sizes (B, K E, L), decay rates (K E, N), write
            and read weights (B, K, N, L).
        inputs: input (B, K, E, L).
        steps: step sizes (B, K, E, L).
        decay: decay rates (K, E, N).
        write: write weights (B, K, N, L).
        read: read weights (B, K, N, L).

    Returns:
        Output (B, K, E, L).
    """
    joined = (inputs.flatten(1, 2), steps.flatten(1, 2), decay.flatten(0, 1))
    return kernel(*joined, write, read).view_as(inputs)


def _scan_positions(
    inputs: Tensor, steps: Tensor, decay: Tensor, write: Tensor, read: Tensor
) -> Tensor:
    """Run `selective_scan` for one position after the other, as one node of an exported graph."""
    from torch._higher_order_ops.scan import scan

    def move(state: Tensor, position: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        step, added, write, read = (each.unsqueeze(-2) for each in position)
        state = (step.mT * decay).exp() * state + added.mT * write
        return state, (state @ read.mT).squeeze(-1)

    sequences = [
        each.permute(3, 0, 1, 2).contiguous() for each in (steps, steps * inputs, write, read)
    ]
    start = inputs.new_zeros(*inputs.shape[:3], decay.shape[2])
    _, outputs = scan(move, start, tuple(sequences), dim=0)
    moved: Tensor = outputs.permute(1, 2, 3, 0)
    return moved
