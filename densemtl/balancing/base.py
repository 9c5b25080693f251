"""Base classes of the balancing methods, which weigh the tasks' losses or gradients.

A method is a module with state. It computes weights, and never runs the model: forward and backward
passes belong to the training step (`densemtl.engine.train_step`), which drives a `TaskBackward`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.config.constraints import NonNegativeFloat
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task
from densemtl.types import Losses

TaskWeights = dict[str, NonNegativeFloat]
"""{task: factor of its loss}."""


@dataclass(frozen=True)
class LossScaler:
    """Scales a loss for its backward pass.

    Attributes:
        grad_scaler: holds the loss scale of mixed-precision training.
        num_micro_batches: number of micro-batches whose mean is minimized.
    """

    grad_scaler: torch.amp.GradScaler
    num_micro_batches: int = 1

    def __call__(self, loss: Tensor) -> Tensor:
        """Return the scaled loss."""
        scaled: Tensor = self.grad_scaler.scale(loss / self.num_micro_batches)
        return scaled


@dataclass(frozen=True)
class BalancingOutput:
    """How the losses of an optimizer step were balanced; detached, on the device of the losses.

    Attributes:
        total: the scalar that was minimized, before scaling.
        weights: {task: scalar factor of its loss}.
        log_values: {name: further scalar for the log}.
    """

    total: Tensor
    weights: dict[str, Tensor]
    log_values: dict[str, Tensor] = field(default_factory=dict)


class TaskBackward(ABC):
    """The backward passes of one optimizer step.

    The training step calls `add` and `backward` for each micro-batch, or for all of them at once
    unless `keeps_graph`, with the weights from `compute_weights`; in the end `finish`.
    """

    keeps_graph: bool
    """Whether `add` keeps the graph of the micro-batch until `backward`."""

    needs_replay: bool
    """Whether several micro-batches must be observed before the first of them is added."""

    def recording(self) -> AbstractContextManager[object]:
        """Return the context in which a micro-batch must run forward before `add`."""
        return nullcontext()

    def replaying(self) -> AbstractContextManager[object]:
        """Return the context in which a micro-batch must run forward before `observe`."""
        return self.recording()

    @abstractmethod
    def observe(self, losses: Losses) -> None:
        """Take in what the weights depend on; `losses` is used up and changes no `.grad`."""

    @abstractmethod
    def add(self, losses: Losses) -> None:
        """Take in the losses of a micro-batch; `losses` is used up, so that its graph is freed."""

    @abstractmethod
    def compute_weights(self) -> Tensor:
        """Return the weights of the step, T, from everything that was observed or added so far."""

    @abstractmethod
    def backward(self, weights: Tensor) -> None:
        """Accumulate the gradient of what was added since the last call in `.grad`."""

    @abstractmethod
    def finish(self, weights: Tensor, losses: Sequence[Losses]) -> BalancingOutput:
        """Update what the method learns, after the last `backward`.

        Args:
            weights: the weights of the step.
            losses: detached losses of each micro-batch.
        """


class Balancer(nn.Module, ABC):
    """Base class of all balancing methods.

    A method is a module, so that its parameters and buffers are optimized, moved and saved with
    everything else: parameters belong into the optimizer, without weight decay.

    All micro-batches of an optimizer step, on all ranks, form one joint batch: the weights are
    computed once per step, from the losses or gradients of the joint batch.

    Args:
        tasks: the tasks of the run.
    """

    needs_post_step_losses: ClassVar[bool] = False
    """Whether `after_step` is called, for which the step's batches run forward once more."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)

    def validate_model(self, model: nn.Module) -> None:
        """Check before training that the method can balance the losses of a model.

        Raises:
            ConfigError: it cannot.
        """

    @abstractmethod
    def start_step(self, model: nn.Module, scale: LossScaler) -> TaskBackward:
        """Return the backward passes of the next optimizer step.

        Args:
            model: the model whose losses are balanced.
            scale: applied to each loss before its backward pass.
        """

    def stack_losses(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the losses in the order of `task_names`, T in single precision."""
        return torch.stack([losses[task] for task in self.task_names]).float()

    def after_step(self, before: Tensor, after: Tensor) -> None:
        """Update the state by the effect of a step, if `needs_post_step_losses`.

        Args:
            before: T losses of the joint batch in the step, in the order of `task_names`, detached.
            after: T losses of the updated model on the same batches, with the same random numbers.
        """

    def end_epoch(self) -> None:
        """Update the state after the last step of an epoch."""


class LossWeighting(Balancer):
    """Base class of the methods that compute the weights from the losses.

    Subclasses implement `weights`. They need one backward pass per micro-batch.
    """

    needs_joint_losses: ClassVar[bool] = True
    """Whether `weights` depends on the losses of the step. If not, several micro-batches need not
    be run forward twice, and `weights` is passed the losses of the first one."""

    @abstractmethod
    def weights(self, losses: Tensor) -> Tensor:
        """Return the factor of each loss, T, with a graph to the parameters of the method.

        Called once per optimizer step.

        Args:
            losses: T losses of the joint batch in the order of `task_names`, without graph; 0 for a
                task without label in the batch.
        """

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Return the scalar to minimize, with a graph to the parameters of the method.

        Its derivatives with respect to the losses must be the weights.

        Args:
            weights: T as returned by `weights`.
            losses: T losses of the joint batch, without graph.
        """
        return (weights * losses).sum()

    def update_state(self, losses: Tensor) -> None:
        """Save what later steps need of the losses of the joint batch, T."""

    def start_step(self, model: nn.Module, scale: LossScaler) -> TaskBackward:
        """Return one backward pass per micro-batch, of the weighted sum of the losses."""
        return WeightedLossBackward(self, scale)


class WeightedLossBackward(TaskBackward):
    """One backward pass per micro-batch, of the weighted losses and the architecture's own terms.

    Args:
        method: computes the weights.
        scale: applied to the weighted sum.
    """

    keeps_graph = True

    def __init__(self, method: LossWeighting, scale: LossScaler) -> None:
        self.needs_replay = method.needs_joint_losses
        self._method, self._scale = method, scale
        self._observed: list[Tensor] = []
        self._added = Losses({})

    def replaying(self) -> AbstractContextManager[object]:
        """Return the context in which no graph is recorded."""
        return torch.no_grad()

    def observe(self, losses: Losses) -> None:
        """Keep the values of the losses."""
        self._observed.append(self._method.stack_losses(losses.tasks).detach())

    def add(self, losses: Losses) -> None:
        """Keep the losses with their graph."""
        self.observe(losses)
        self._added = losses

    def compute_weights(self) -> Tensor:
        """Return the weights that the method computes from the mean of the losses."""
        return self._method.weights(torch.stack(self._observed).mean(dim=0))

    def backward(self, weights: Tensor) -> None:
        """Run backward from the weighted sum."""
        losses, self._added = self._added, Losses({})
        pairs = zip(weights.detach(), self._method.task_names, strict=True)
        weighted = [weight * losses.tasks[task] for weight, task in pairs]
        self._scale(torch.stack([*weighted, *losses.aux_losses.values()]).sum()).backward()

    def finish(self, weights: Tensor, losses: Sequence[Losses]) -> BalancingOutput:
        """Run backward to the parameters of the method, and update its state."""
        method = self._method
        joint = torch.stack([method.stack_losses(loss.tasks) for loss in losses]).mean(dim=0)
        total = method.total(weights, joint)
        if total.requires_grad:
            self._scale(len(losses) * total).backward()  # once, for all micro-batches
        method.update_state(joint)
        terms = [term for loss in losses for term in loss.aux_losses.values()]
        return BalancingOutput(
            total.detach() + sum(terms) / len(losses),
            dict(zip(method.task_names, weights.detach(), strict=True)),
        )


def validate_task_weights(weights: Iterable[str], names: Sequence[str]) -> None:
    """Check that the option `weights` names only tasks of the run.

    Raises:
        ConfigError: a weight is for another task.
    """
    for task in weights:
        if task not in names:
            valid_names = ", ".join(names)
            raise ConfigError(
                f"balancing.weights: no task '{task}' in this run; has {valid_names}."
            )
