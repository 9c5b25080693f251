"""Losses read one step late, so that no step waits for the device, and checked as they are read."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from densemtl.errors import UserError

Losses = dict[str, float]


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite; names task and step."""


class LossMonitor:
    """Holds one step's losses until the next step is under way.

    Args:
        forgive: tell of a loss that is not finite instead of raising.
        tell: takes the line that says so.
    """

    def __init__(self, forgive: bool = False, tell: Callable[[str], None] = print) -> None:
        self._forgive, self._tell = forgive, tell
        self._pending: tuple[int, list[str], Tensor] | None = None
        self._copied: torch.cuda.Event | None = None

    def push(self, step: int, losses: dict[str, Tensor]) -> Losses | None:
        """Take a step's losses and give back those of the step before, if it had any.

        Raises:
            NonFiniteLossError: one of the losses given back is not finite.
        """
        before = self.drain()
        stacked = torch.stack([loss.detach().float() for loss in losses.values()])
        self._pending = step, list(losses), stacked.to("cpu", non_blocking=stacked.is_cuda)
        if stacked.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return before

    def drain(self) -> Losses | None:
        """The losses still held, checked; None where there are none, or they are forgiven.

        Raises:
            NonFiniteLossError: one of them is not finite.
        """
        if self._pending is None:
            return None
        step, names, values = self._pending
        self._pending = None
        if self._copied is not None:
            self._copied.synchronize()
        losses = dict(zip(names, values.tolist(), strict=True))
        broken = [
            f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)
        ]
        if not broken:
            return losses
        if not self._forgive:
            raise NonFiniteLossError(
                f"loss of {', '.join(broken)} at step {step}: lower optim.lr, set train.clip_norm, "
                f"or train.non_finite=skip; the checkpoints are from before it"
            )
        self._tell(f"step {step} skipped: loss of {', '.join(broken)}")
        return None


class Means:
    """Means of named numbers since they were last taken."""

    def __init__(self) -> None:
        self._sums: Losses = {}
        self._count = 0

    def add(self, values: Losses | None) -> None:
        """Add one step's numbers; None adds nothing."""
        if values is None:
            return
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in values.items()}
        self._count += 1

    def take(self) -> Losses:
        """The means, empty where nothing was added; starts over."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
