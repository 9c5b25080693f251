"""Checks of losses and weights for NaN and infinity, and running means of losses.

Losses are read one step late, so that no training step waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from densemtl.distributed.sharding import gather_full
from densemtl.errors import UserError

LossValues = dict[str, float]
"""{name: value of a loss or another logged scalar}."""

HINT = (
    "lower optim.lr, set train.max_grad_norm, or set train.on_non_finite=skip; the saved"
    " checkpoints are from before this step"
)

GRADIENT_KEY = "gradient"
"""Key of the gradient norm in the log of a step whose losses are finite but whose norm is not."""


_make_event: Callable[[], torch.cuda.Event] = torch.cuda.Event
"""The constructor, which torch leaves without annotations."""


class NonFiniteLossError(UserError):
    """Error that a loss or a weight became NaN or infinite; names the task and the step."""


class LossMonitor:
    """Buffer that holds the losses of one step until the next step has started.

    Args:
        skip_non_finite: if True, report a loss that is not finite instead of raising an error.
        report: function that is called with one line for each skipped step.

    Example:
        >>> monitor = LossMonitor()
        >>> monitor.update(1, {"depth": torch.tensor(0.5)})  # nothing to return yet
        >>> monitor.update(2, {"depth": torch.tensor(0.25)})
        {'depth': 0.5}
        >>> monitor.flush()
        {'depth': 0.25}
    """

    def __init__(
        self, skip_non_finite: bool = False, report: Callable[[str], None] = print
    ) -> None:
        self._skip_non_finite, self._report = skip_non_finite, report
        self._pending: tuple[int, list[str], Tensor] | None = None
        self._copy_event: torch.cuda.Event | None = None

    def update(self, step: int, losses: dict[str, Tensor]) -> LossValues | None:
        """Store the losses of a step, and return those of the previous step.

        Args:
            step: number of the step, for error messages.
            losses: {name: scalar}; copied to the CPU asynchronously.

        Returns:
            The result of `flush` for the previous step.

        Raises:
            NonFiniteLossError: if a loss of the previous step is not finite.
        """
        previous = self.flush()
        stacked = torch.stack([loss.detach().float() for loss in losses.values()])
        self._pending = step, list(losses), stacked.to("cpu", non_blocking=stacked.is_cuda)
        if stacked.is_cuda:
            self._copy_event = _make_event()
            self._copy_event.record()
        return previous

    def flush(self) -> LossValues | None:
        """Check and return the stored losses.

        Returns:
            {name: value}; None if no losses are stored or their step was skipped.

        Raises:
            NonFiniteLossError: if a loss is not finite, unless such steps are skipped.
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
    """Check that all weights are finite, which finite losses do not guarantee.

    Args:
        groups: {name of a parameter group, such as a task: parameters}.
        step: number of finished optimizer steps, for the error message.

    Raises:
        NonFiniteLossError: if a weight is NaN or infinite; names the groups.
    """
    finite = {name: _is_all_finite(weights) for name, weights in groups.items() if weights}
    names = ", ".join(name for name, is_finite in finite.items() if not is_finite)
    if names:
        raise NonFiniteLossError(f"weights of {names} are not finite at step {step}: {HINT}")


def _is_all_finite(weights: Sequence[Tensor]) -> bool:
    finite = [gather_full(weight.detach()).isfinite().all() for weight in weights]
    return bool(torch.stack(finite).all())


class RunningMeans:
    """Running means of named values.

    Args:
        skip_zeros: names of values, such as losses of tasks, that do not count if they are 0: no
            image of the step had a label of the task.

    Example:
        >>> means = RunningMeans()
        >>> means.add({"depth": 1.0})
        >>> means.add({"depth": 3.0})
        >>> means.compute_and_reset()
        {'depth': 2.0}
    """

    def __init__(self, skip_zeros: Collection[str] = ()) -> None:
        self._skip_zeros = skip_zeros
        self._sums: LossValues = {}
        self._counts: dict[str, int] = {}

    def add(self, values: LossValues | None) -> None:
        """Add the values of one step.

        Args:
            values: {name: value}; None adds nothing.
        """
        for name, value in ({} if values is None else values).items():
            if value != 0 or name not in self._skip_zeros:
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def compute(self) -> LossValues:
        """Return {name: mean} of the values that were added since the last reset."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def compute_and_reset(self) -> LossValues:
        """Return {name: mean} of the values that were added, and reset the means."""
        means = self.compute()
        self._sums, self._counts = {}, {}
        return means
