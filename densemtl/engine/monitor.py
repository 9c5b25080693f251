"""Losses read one step late, so that no step waits for the device, and checked as they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from densemtl.engine.fsdp import whole
from densemtl.errors import UserError

Losses = dict[str, float]


ADVICE = (
    "lower optim.lr, set train.clip_norm, or train.non_finite=skip; the checkpoints are from before"
    " it"
)


GRADIENT = "gradient"
"""What a step's report holds beside losses if they are finite, and their gradient is not."""


class NonFiniteLossError(UserError):
    """A loss or a weight became NaN or infinite; names task and step."""


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
        told = broken[0] if GRADIENT in losses else f"loss of {', '.join(broken)}"
        if not self._forgive:
            raise NonFiniteLossError(f"{told} at step {step}: {ADVICE}")
        self._tell(f"step {step} skipped: {told}")
        return None


def check_weights(groups: Mapping[str, Sequence[Tensor]], step: int) -> None:
    """See that weights are worth keeping: a gradient may break them though losses were finite.

    Args:
        groups: {what they belong to, such as a task: parameters}.
        step: after which they are looked at.

    Raises:
        NonFiniteLossError: one is NaN or infinite; names the groups.
    """
    finite = {name: _are_finite(weights) for name, weights in groups.items() if weights}
    broken = [name for name, each in finite.items() if not each]
    if broken:
        told = ", ".join(broken)
        raise NonFiniteLossError(f"weights of {told} are not finite at step {step}: {ADVICE}")


def _are_finite(weights: Sequence[Tensor]) -> bool:
    return bool(torch.stack([whole(each.detach()).isfinite().all() for each in weights]).all())


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
