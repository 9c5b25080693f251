"""Backward passes of one optimizer step: their interface, loss scaling and result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from densemtl.types import Losses


@dataclass(frozen=True)
class LossScaler:
    """Scaling of a loss for its backward pass.

    Attributes:
        grad_scaler: holds the loss scale of mixed-precision training.
        num_micro_batches: number of micro-batches in the optimizer step, whose mean loss is
            minimized.
    """

    grad_scaler: torch.amp.GradScaler
    num_micro_batches: int = 1

    def __call__(self, loss: Tensor) -> Tensor:
        """Scale a loss.

        Args:
            loss: the loss of one micro-batch, a scalar or of any shape.

        Returns:
            The loss times the loss scale, divided by the number of micro-batches; same shape.
        """
        scaled: Tensor = self.grad_scaler.scale(loss / self.num_micro_batches)
        return scaled


@dataclass(frozen=True)
class BalancingOutput:
    """Result of balancing the losses of one optimizer step; detached, on the device of the losses.

    Attributes:
        total: the scalar that was minimized, before loss scaling.
        weights: {task name: scalar loss weight}.
        log_values: {name: further scalar for the log}.
    """

    total: Tensor
    weights: dict[str, Tensor]
    log_values: dict[str, Tensor] = field(default_factory=dict)


class TaskBackward(ABC):
    """Base class of the backward passes of one optimizer step.

    The training step calls `add` for each micro-batch and `compute_weights` once. It calls
    `backward` after each `add` if `keeps_graph`, and otherwise once after the last `add`. Finally,
    it calls `finish`. If `needs_replay` and there are several micro-batches, all of them first run
    forward and are passed to `observe`; then the weights are computed, and all of them run forward
    again.
    """

    keeps_graph: bool
    """Whether `add` keeps the graph of the micro-batch until `backward`."""

    needs_replay: bool
    """Whether all micro-batches must be observed before the first one is added."""

    def recording(self) -> AbstractContextManager[object]:
        """Create the context in which a micro-batch must run forward before `add`.

        Returns:
            A context manager; by default, it does nothing.
        """
        return nullcontext()

    def replaying(self) -> AbstractContextManager[object]:
        """Create the context in which a micro-batch must run forward before `observe`.

        Returns:
            A context manager; by default, that of `recording`.
        """
        return self.recording()

    @abstractmethod
    def observe(self, losses: Losses) -> None:
        """Record what the weights depend on, without changing any `.grad`.

        Args:
            losses: the losses of a micro-batch with their graph. The call may empty it.
        """

    @abstractmethod
    def add(self, losses: Losses) -> None:
        """Record the losses of a micro-batch for `backward`.

        Args:
            losses: the losses of a micro-batch with their graph. They may be emptied, so that the
                graph is freed early.
        """

    @abstractmethod
    def compute_weights(self) -> Tensor:
        """Return the weights of the step from everything that was observed or added so far.

        Returns:
            The weights, shape (T,), in the order of `Balancer.task_names`.
        """

    @abstractmethod
    def backward(self, weights: Tensor) -> None:
        """Accumulate in `.grad` the gradient of what was added since the last call.

        Args:
            weights: the weights of the step, shape (T,).
        """

    @abstractmethod
    def finish(self, weights: Tensor, losses: Sequence[Losses]) -> BalancingOutput:
        """Update the learned state of the method after the last `backward`.

        Args:
            weights: the weights of the step, shape (T,).
            losses: detached losses of each micro-batch.

        Returns:
            The total loss, the loss weights and the values for the log.
        """
