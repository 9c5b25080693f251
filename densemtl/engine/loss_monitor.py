"""Read and check losses one step late, so that no step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from densemtl.distributed.sharding import gather_full
from densemtl.errors import UserError

LossValues = dict[str, float]

HINT = (
    "lower optim.lr, set train.max_grad_norm, or train.on_non_finite=skip; the checkpoints are from"
    " before it"
)

GRADIENT_KEY = "gradient"
"""Name of the gradient's norm in a step's log, where the losses are finite and it is not."""


class NonFiniteLossError(UserError):
    """A loss or a weight became NaN or infinite; names the task and the step."""


class LossMonitor:
    """Holds the losses of one step until the next step has started.

    Args:
        skip_non_finite: report a loss that is not finite instead of raising.
        report: called with one line about each skipped step.
    """

    def __init__(
        self, skip_non_finite: bool = False, report: Callable[[str], None] = print
    ) -> None:
        self._skip_non_finite, self._report = skip_non_finite, report
        self._pending: tuple[int, list[str], Tensor] | None = None
        self._copy_event: torch.cuda.Event | None = None

    def update(self, step: int, losses: dict[str, Tensor]) -> LossValues | None:
        """Take the losses of a step, and return those of the previous one as `flush` does.

        Raises:
            NonFiniteLossError: one of the returned losses is not finite.
        """
        previous = self.flush()
        stacked = torch.stack([loss.detach().float() for loss in losses.values()])
        self._pending = step, list(losses), stacked.to("cpu", non_blocking=stacked.is_cuda)
        if stacked.is_cuda:
            self._copy_event = torch.cuda.Event()
            self._copy_event.record()
        return previous

    def flush(self) -> LossValues | None:
        """Return the losses that are held; None if there are none, or their step was skipped.

        Raises:
            NonFiniteLossError: one of them is not finite.
        """
        if self._pending is None:
            return None
        step, names, values = self._pending
        self._pending = None
        if self._copy_event is not None:
            self._copy_event.synchronize()
        losses = dict(zip(names, values.tolist(), strict=True))
        errors = [
            f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)
        ]
        if not errors:
            return losses
        message = errors[0] if GRADIENT_KEY in losses else f"loss of {', '.join(errors)}"
        if not self._skip_non_finite:
            raise NonFiniteLossError(f"{message} at step {step}: {HINT}")
        self._report(f"step {step} skipped: {message}")
        return None


def check_weights_finite(groups: Mapping[str, Sequence[Tensor]], step: int) -> None:
    """Check that weights are finite, which finite losses do not guarantee.

    Args:
        groups: {group, such as a task: parameters}.
        step: number of optimizer steps so far, for the message.

    Raises:
        NonFiniteLossError: one is NaN or infinite; names the groups.
    """
    finite = {name: _is_all_finite(weights) for name, weights in groups.items() if weights}
    names = ", ".join(name for name, is_finite in finite.items() if not is_finite)
    if names:
        raise NonFiniteLossError(f"weights of {names} are not finite at step {step}: {HINT}")


def _is_all_finite(weights: Sequence[Tensor]) -> bool:
    finite = [gather_full(weight.detach()).isfinite().all() for weight in weights]
    return bool(torch.stack(finite).all())


class RunningMeans:
    """Running means of named values."""

    def __init__(self) -> None:
        self._sums: LossValues = {}
        self._count = 0

    def add(self, values: LossValues | None) -> None:
        """Add the values of one step; None adds nothing."""
        if values is None:
            return
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in values.items()}
        self._count += 1

    def compute_and_reset(self) -> LossValues:
        """Return the means, empty if nothing was added, and start over."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
