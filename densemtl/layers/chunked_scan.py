"""Selective scan as a loop over positions, in one or several chunks, with its backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

STATES_ON_CPU, STATES_ON_GPU = 2**19, 2**24
"""Number of states that are computed together: few fit into the caches of a CPU, and many need few
kernels on a GPU."""


def scan_chunks(
    inputs: Tensor, steps: Tensor, decay: Tensor, write: Tensor, read: Tensor, chunk: int
) -> Tensor:
    """Run `selective_scan` in chunks of positions that are computed together.

    Args:
        inputs: input (B, K, E, L).
        steps: step sizes (B, K, E, L).
        decay: decay rates (K, E, N).
        write: write weights (B, K, N, L).
        read: read weights (B, K, N, L).
        chunk: number of positions per chunk; L for a single chunk.

    Returns:
        Output (B, K, E, L).
    """
    batch, directions, channels, length = inputs.shape
    count = -(-length // chunk)
    rates = decay.mT.contiguous()
    sequences = [
        _arrange(each, chunk, value)
        for each, value in ((steps, 1.0), (steps * inputs, 0.0), (write, 0.0), (read, 0.0))
    ]
    if torch.is_grad_enabled():
        output: Tensor = _ChunkedScan.apply(rates, *sequences, batch)
    else:
        output = _scan_segments(rates, sequences, batch, [])
    output = output.view(chunk, count, batch, directions, channels)
    return output.permute(2, 3, 4, 1, 0).flatten(3)[..., :length]


def _arrange(sequences: Tensor, chunk: int, value: float) -> Tensor:
    """Arrange sequences (B, K, E, L) as (Q, C B, K, E), with C chunks of Q positions.

    The last chunk is filled with `value`.
    """
    batch, directions, channels, length = sequences.shape
    count = -(-length // chunk)
    if count * chunk > length:
        sequences = F.pad(sequences, (0, count * chunk - length), value=value)
    shape = (batch, directions, channels, count, chunk)
    return sequences.reshape(shape).permute(4, 3, 0, 1, 2).flatten(1, 2).contiguous()


def _split_positions(num_states: int, *sequences: Tensor) -> list[tuple[Tensor, ...]]:
    """Split sequences of the same length into segments, whose states are computed together.

    A segment has at least as many positions as a channel has states. The states that are kept for
    the backward pass, one per segment, then need no more memory than the inputs.
    """
    limit = STATES_ON_CPU if sequences[0].device.type == "cpu" else STATES_ON_GPU
    positions = max(limit // (num_states * sequences[0][0].numel()), num_states)
    return list(zip(*(torch.split(each, positions) for each in sequences), strict=True))


def _make_recurrence(
    rates: Tensor, steps: Tensor, added: Tensor, write: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the factors of the states and what is added to them, (Q, C B, K, N, E) each."""
    return (steps.unsqueeze(3) * rates).exp_(), added.unsqueeze(3) * write.unsqueeze(4)


def _advance(factors: Tensor, added: Tensor, state: Tensor) -> Tensor:
    """Replace what is added by the states after all positions, and return the last one."""
    for factor, term in zip(factors.unbind(), added.unbind(), strict=True):
        state = term.addcmul_(factor, state)
    return state


def _go_back(factors: Tensor, added: Tensor, carry: Tensor) -> Tensor:
    """Replace what is added by the gradients of the states, from the last to the first position.

    `carry` is the gradient of the last state due to later positions. Return the gradient of the
    state before the first position.
    """
    *others, gradient = added.unbind()
    gradient.add_(carry)
    for factor, term in zip(reversed(factors.unbind()[1:]), reversed(others), strict=True):
        gradient = term.addcmul_(factor, gradient)
    return gradient * factors[0]


def _pass_on(ends: Tensor, products: Tensor, batch: int, *, backward: bool = False) -> Tensor:
    """Return the state before each chunk, from its last state if it started at 0.

    Args:
        ends: last state (C B, K, N, E) of each chunk that started at 0.
        products: product (C B, K, N, E) of all factors of each chunk.
        batch: batch size B.
        backward: whether gradients are passed on, from the last to the first chunk.
    """
    order = slice(None, None, -1 if backward else 1)
    terms, factors = (torch.split(each, batch)[order] for each in (ends, products))
    starts = [torch.zeros_like(terms[0])]
    for factor, term in zip(factors[:-1], terms[:-1], strict=True):
        starts.append(torch.addcmul(term, factor, starts[-1]))
    return torch.cat(starts[order])


def _multiply_factors(rates: Tensor, steps: Tensor) -> Tensor:
    """Return the product (C B, K, N, E) of the factors of all positions."""
    return (steps.sum(dim=0).unsqueeze(2) * rates).exp_()


def _scan_segments(
    rates: Tensor, sequences: Sequence[Tensor], batch: int, kept: list[Tensor]
) -> Tensor:
    """Return the output (Q, C B, K, E), and append the state before each segment to `kept`.

    Args:
        rates: decay rates (K, N, E).
        sequences: steps and what is added (Q, C B, K, E), write and read weights (Q, C B, K, N).
        batch: batch size B.
        kept: list of states (C B, K, N, E).
    """
    steps, num_states = sequences[0], rates.shape[1]
    state = steps.new_zeros(steps.shape[1], *rates.shape)
    if steps.shape[1] > batch:
        end = state
        for segment in _split_positions(num_states, *sequences[:3]):
            end = _advance(*_make_recurrence(rates, *segment), end)
        state = _pass_on(end, _multiply_factors(rates, steps), batch)
    outputs = []
    for step, added, write, read in _split_positions(num_states, *sequences):
        kept.append(state)
        factors, states = _make_recurrence(rates, step, added, write)
        state = _advance(factors, states, state).clone()  # a view would keep all states
        outputs.append((read.unsqueeze(3) @ states).squeeze(3))
    return torch.cat(outputs)


class _ChunkedScan(torch.autograd.Function):
    """`_scan_segments` with a backward pass that computes the states again.

    The gradient g of the states follows the same recurrence in the opposite order:
    g_l = read_l * gradient_l + factor_{l+1} g_{l+1}.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rates: Tensor,
        steps: Tensor,
        added: Tensor,
        write: Tensor,
        read: Tensor,
        batch: int,
    ) -> Tensor:
        """Compute the output, and keep the arguments and the state before each segment."""
        kept: list[Tensor] = []
        output = _scan_segments(rates, (steps, added, write, read), batch, kept)
        ctx.save_for_backward(rates, steps, added, write, read, *kept)
        ctx.batch = batch
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all arguments."""
        rates, *sequences = ctx.saved_tensors[:5]
        segments = _split_positions(rates.shape[1], *sequences, gradient.contiguous())
        carry = _start_gradients(rates, sequences[0], segments, ctx.batch)
        of_rates, gradients = torch.zeros_like(rates), []
        for (*segment, read, outputs), state in zip(
            reversed(segments), reversed(ctx.saved_tensors[5:]), strict=True
        ):
            of_segment, carry = _differentiate(rates, (*segment, read), state, outputs, carry)
            of_rates += of_segment[0]
            gradients.append(of_segment[1:])
        of_sequences = (torch.cat(each[::-1]) for each in zip(*gradients, strict=True))
        return of_rates, *of_sequences, None


def _start_gradients(
    rates: Tensor, steps: Tensor, segments: list[tuple[Tensor, ...]], batch: int
) -> Tensor:
    """Return the gradient (C B, K, N, E) of the last state of each chunk due to later chunks.

    Args:
        rates: decay rates (K, N, E).
        steps: step sizes (Q, C B, K, E).
        segments: for each segment, its four sequences and the gradient of its output.
        batch: batch size B.
    """
    carry = steps.new_zeros(steps.shape[1], *rates.shape)
    if steps.shape[1] == batch:
        return carry
    # The gradient is added to that of a state with the weight with which the state is read.
    for step, *_, read, gradient in reversed(segments):
        carry = _go_back(*_make_recurrence(rates, step, gradient, read), carry)
    return _pass_on(carry, _multiply_factors(rates, steps), batch, backward=True)


def _differentiate(
    rates: Tensor, segment: tuple[Tensor, ...], state: Tensor, gradient: Tensor, carry: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the gradients of a segment, and the gradient of the state before it.

    Args:
        rates: decay rates (K, N, E).
        segment: steps, what is added, write and read weights of the segment.
        state: state (C B, K, N, E) before the segment.
        gradient: gradient (Q, C B, K, E) of the output.
        carry: gradient of the last state due to later segments.

    Returns:
        Gradients of the rates and of the four sequences, and the gradient of `state`.
    """
    steps, added, write, read = segment
    factors, states = _make_recurrence(rates, steps, added, write)
    _advance(factors, states, state)
    of_states = gradient.unsqueeze(3) * read.unsqueeze(4)
    carry = _go_back(factors, of_states, carry)
    # Products with transposed matrices are several times faster than those with columns.
    of_read = (gradient.unsqueeze(3) @ states.mT).squeeze(3)
    of_write = (added.unsqueeze(3) @ of_states.mT).squeeze(3)
    of_added = (write.unsqueeze(3) @ of_states).squeeze(3)
    of_exponents = factors.mul_(of_states)
    of_exponents[0] *= state
    of_exponents[1:] *= states[:-1]
    of_steps = (of_exponents * rates).sum(dim=3)
    of_rates = (of_exponents * steps.unsqueeze(3)).sum(dim=(0, 1))
    return (of_rates, of_steps, of_added, of_write, of_read), carry
