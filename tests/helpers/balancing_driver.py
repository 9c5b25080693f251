"""Driver that runs a balancing method through one optimizer step, as the training step does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from densemtl.balancing.backward_passes import BalancingOutput, LossScaler
from densemtl.balancing.base import Balancer
from densemtl.types import Losses

UNSCALED = torch.amp.GradScaler("cpu", enabled=False)
TIMES_1024 = torch.amp.GradScaler("cpu", init_scale=1024)


def accumulate(
    balancer: Balancer,
    forwards: Sequence[Callable[[], Losses]],
    model: nn.Module,
    scale: LossScaler | None = None,
) -> BalancingOutput:
    """Accumulate the gradients of several micro-batches, each given by its forward pass."""
    backward = balancer.start_step(model, scale or LossScaler(UNSCALED, len(forwards)))
    weights = None
    if len(forwards) > 1 and backward.needs_replay:
        for forward in forwards:
            with backward.replaying():
                losses = forward()
            backward.observe(losses)
        weights = backward.compute_weights()
    all_losses = []
    for number, forward in enumerate(forwards, 1):
        with backward.recording():
            losses = forward()
        all_losses.append(losses.detach())
        backward.add(losses)
        if backward.keeps_graph or number == len(forwards):
            weights = backward.compute_weights() if weights is None else weights
            backward.backward(weights)
    return backward.finish(weights, all_losses)
