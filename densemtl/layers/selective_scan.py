"""Selective scan of Mamba (Gu and Dao 2023): a recurrence whose coefficients vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

STATES_ON_CPU, STATES_ON_GPU = 2**20, 2**24
"""Number of states that are computed at a time: few fit into the caches of a CPU, and many need few
kernels on a GPU."""


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
    with the discretization of section 2. The sequence is cut into chunks. A first pass computes the
    last state of all chunks at once, each from a state of 0; these states are then passed on from
    chunk to chunk, and a second pass computes all states. Only products of decays are computed,
    never quotients, so that strong decay is stable. The backward pass computes the states again.

    The kernel of the package `mamba_ssm` is used on a GPU where that package is installed. It was
    not tested on a GPU.

    Args:
        inputs: input x (B, K, E, L) of K independent directions with E channels and L positions.
        steps: positive step sizes (B, K, E, L).
        decay: negative decay rates (K, E, N) of N states.
        write: weights (B, K, N, L) with which inputs are added to the states.
        read: weights (B, K, N, L) with which states are added to the output.
        chunk: number of positions per chunk, which only affects time; None for the square root of
            the number of positions.

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
    if inputs.is_cuda and inputs.dtype == torch.float32 and not torch.compiler.is_compiling():
        kernel = find_kernel()
        if kernel is not None:
            return scan_by_kernel(kernel, inputs, steps, decay, write, read)
    return _scan_chunks(
        inputs, steps, decay, write, read, chunk or math.isqrt(inputs.shape[3] - 1) + 1
    )


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


def _scan_chunks(
    inputs: Tensor, steps: Tensor, decay: Tensor, write: Tensor, read: Tensor, chunk: int
) -> Tensor:
    """Run `selective_scan` for some channels after the others, to limit the memory."""
    batch, directions, channels, length = inputs.shape
    count = -(-length // chunk)
    arranged = [
        _arrange(each, chunk, value)
        for each, value in ((inputs, 0.0), (steps, 1.0), (write, 0.0), (read, 0.0))
    ]
    per_channel = batch * directions * decay.shape[2] * count * chunk
    limit = STATES_ON_CPU if inputs.device.type == "cpu" else STATES_ON_GPU
    size = max(limit // per_channel, 1)
    scan: Callable[..., Tensor] = _ChunkedScan.apply if torch.is_grad_enabled() else _scan_channels
    parts = (torch.split(each, size, dim=-2) for each in (decay, *arranged[:2]))
    outputs = [scan(*each, *arranged[2:], batch) for each in zip(*parts, strict=True)]
    output = torch.cat(outputs, dim=2).view(chunk, directions, channels, count, batch)
    return output.permute(4, 1, 2, 3, 0).flatten(3)[..., :length]


def _arrange(sequences: Tensor, chunk: int, value: float) -> Tensor:
    """Arrange sequences (B, K, E, L) as (Q, K, E, C B), with C chunks of Q positions.

    The same position of all chunks is then contiguous. The last chunk is filled with `value`.
    """
    batch, directions, channels, length = sequences.shape
    count = -(-length // chunk)
    if count * chunk > length:
        sequences = F.pad(sequences, (0, count * chunk - length), value=value)
    shape = (batch, directions, channels, count, chunk)
    return sequences.reshape(shape).permute(4, 1, 2, 3, 0).flatten(3)


def _make_recurrence(
    decay: Tensor, inputs: Tensor, steps: Tensor, write: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the factors of the states and what is added to them, (Q, K, E, N, C B) each."""
    factors = (steps.unsqueeze(3) * decay.unsqueeze(3)).exp()
    return factors, (steps * inputs).unsqueeze(3) * write.unsqueeze(2)


def _compute_states(
    factors: Sequence[Tensor], added: Sequence[Tensor], batch: int, *, backward: bool = False
) -> Tensor:
    """Return all states (Q, K, E, N, C B) from coefficients (K, E, N, C B) per position.

    With `backward`, the recurrence runs from the last position of the last chunk to the first one.
    """
    order = slice(None, None, -1 if backward else 1)
    factors, added = factors[order], added[order]
    last, product = added[0], factors[0]
    for factor, term in zip(factors[1:], added[1:], strict=True):
        last, product = torch.addcmul(term, factor, last), product * factor
    ends, products = (torch.split(each, batch, dim=-1)[order] for each in (last, product))
    starts = [torch.zeros_like(ends[0])]
    for factor, term in zip(products[:-1], ends[:-1], strict=True):
        starts.append(torch.addcmul(term, factor, starts[-1]))
    state, states = torch.cat(starts[order], dim=-1), []
    for factor, term in zip(factors, added, strict=True):
        state = torch.addcmul(term, factor, state)
        states.append(state)
    return torch.stack(states[order])


def _scan_channels(
    decay: Tensor, inputs: Tensor, steps: Tensor, write: Tensor, read: Tensor, batch: int
) -> Tensor:
    """Return the output (Q, K, E, C B) of some channels."""
    factors, added = _make_recurrence(decay, inputs, steps, write)
    states = _compute_states(factors.unbind(), added.unbind(), batch)
    return (states * read.unsqueeze(2)).sum(dim=3)


class _ChunkedScan(torch.autograd.Function):
    """`_scan_channels` with a backward pass that computes the states again.

    The gradient g of the states follows the same recurrence in the opposite order:
    g_l = read_l * gradient_l + factor_{l+1} g_{l+1}.
    """

    @staticmethod
    def forward(
        ctx: Any,
        decay: Tensor,
        inputs: Tensor,
        steps: Tensor,
        write: Tensor,
        read: Tensor,
        batch: int,
    ) -> Tensor:
        """Compute the output, and keep only the arguments."""
        ctx.save_for_backward(decay, inputs, steps, write, read)
        ctx.batch = batch
        return _scan_channels(decay, inputs, steps, write, read, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        decay, inputs, steps, write, read = ctx.saved_tensors
        batch = ctx.batch
        whole, added = _make_recurrence(decay, inputs, steps, write)
        factors = whole.unbind()
        states = _compute_states(factors, added.unbind(), batch)
        gradient = gradient.unsqueeze(3)
        of_read = (states * gradient).sum(dim=2)
        # the position after the last one of a chunk is the first one of the next chunk
        following = F.pad(factors[0][..., batch:], (0, batch))
        of_states = _compute_states(
            (*factors[1:], following),
            (gradient * read.unsqueeze(2)).unbind(),
            batch,
            backward=True,
        )
        written = (of_states * write.unsqueeze(2)).sum(dim=3)
        of_write = (of_states * (steps * inputs).unsqueeze(3)).sum(dim=2)
        # factor_l h_{l-1} = h_l minus what is added at position l
        of_exponents = states.sub_(added).mul_(of_states)
        of_steps = (of_exponents * decay.unsqueeze(3)).sum(dim=3) + written * inputs
        of_decay = (of_exponents * steps.unsqueeze(3)).sum(dim=(0, 4))
        return of_decay, written * steps, of_steps, of_write, of_read, None
