"""Losses read one step late, so that no step waits for the device, and checked as they are read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from densemtl.errors import UserError


class NonFiniteLoss(UserError):
    """A loss became NaN or infinite; names task and step."""


class LossMonitor:
    """Holds one step's losses until the next step is under way."""

    def __init__(self) -> None:
        self._pending: tuple[int, list[str], Tensor] | None = None

    def push(self, step: int, losses: dict[str, Tensor]) -> tuple[int, dict[str, float]] | None:
        """Take a step's losses and give back those of the step before.

        Raises:
            NonFiniteLoss: one of the losses given back is not finite.
        """
        before = self.drain()
        stacked = torch.stack([loss.detach().float() for loss in losses.values()])
        self._pending = step, list(losses), stacked.to("cpu", non_blocking=stacked.is_cuda)
        if stacked.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return before

    def drain(self) -> tuple[int, dict[str, float]] | None:
        """The losses still held, if any, checked.

        Raises:
            NonFiniteLoss: one of them is not finite.
        """
        if self._pending is None:
            return None
        step, names, values = self._pending
        self._pending = None
        if torch.cuda.is_initialized():
            self._copied.synchronize()
        losses = dict(zip(names, values.tolist(), strict=True))
        check_finite(step, losses)
        return step, losses


def check_finite(step: int, losses: dict[str, float]) -> None:
    """Raise `NonFiniteLoss` that names every task whose loss is not finite."""
    broken = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        raise NonFiniteLoss(
            f"loss of {', '.join(broken)} at step {step}: lower optim.lr, set train.clip_norm, "
            f"or train.non_finite=skip; the checkpoints are from before it"
        )
