"""Base classes of the balancing methods, which weight the losses or gradients of tasks.

A balancing method is a module with state. It computes loss weights and never runs the model. The
training step (`densemtl.engine.train_step`) runs the forward and backward passes through a
`TaskBackward`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

import torch
from torch import Tensor, nn

from densemtl.balancing.backward_passes import BalancingOutput, LossScaler, TaskBackward
from densemtl.config.constraints import NonNegativeFloat
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task
from densemtl.types import Losses

TaskWeights = dict[str, NonNegativeFloat]
"""{task name: factor of its loss}."""


class Balancer(nn.Module, ABC):
    """Base class of all balancing methods.

    A method is a module, so that its parameters and buffers are optimized, moved and saved with
    those of the model. The optimizer updates its parameters without weight decay.

    All micro-batches of an optimizer step, on all ranks, form one joint batch. The weights are
    computed once per step, from the losses or gradients of the joint batch.

    Args:
        tasks: the tasks of the run.

    Attributes:
        task_names: the names of the tasks, in the order of all tensors of shape (T,).
        active: whether each task is trained at present; a curriculum leaves out some of them.
    """

    needs_post_step_losses: ClassVar[bool] = False
    """Whether `after_step` is called. If so, the batches of the step run forward once more."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        self.active = (True,) * len(self.task_names)

    def set_active(self, active: Sequence[bool]) -> None:
        """Set which tasks are trained. The others have no labels.

        Args:
            active: one value per task.
        """
        self.active = tuple(active)

    def validate_model(self, model: nn.Module) -> None:
        """Check before training that the method can balance the losses of a model.

        Args:
            model: the model to be trained.

        Raises:
            ConfigError: if the method cannot balance them.
        """

    @abstractmethod
    def start_step(self, model: nn.Module, scale: LossScaler) -> TaskBackward:
        """Return the backward passes of the next optimizer step.

        Args:
            model: the model whose losses are balanced.
            scale: applied to each loss before its backward pass.

        Returns:
            The object that runs the backward passes of this step.
        """

    def stack_losses(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Stack losses in the order of `task_names`.

        Args:
            losses: {task name: scalar loss}.

        Returns:
            The losses in single precision, shape (T,).
        """
        return torch.stack([losses[task] for task in self.task_names]).float()

    def after_step(self, before: Tensor, after: Tensor) -> None:
        """Update the state from the effect of a step; called if `needs_post_step_losses`.

        Args:
            before: detached losses of the joint batch in the step, shape (T,).
            after: losses of the updated model on the same batches and with the same random numbers,
                shape (T,).
        """

    def end_epoch(self) -> None:
        """Update the state after the last step of an epoch."""


class LossWeighting(Balancer):
    """Base class of the loss-weighting methods, which compute the weights from the losses.

    Subclasses implement `weights`. They need one backward pass per micro-batch.
    """

    needs_joint_losses: ClassVar[bool] = True
    """Whether `weights` depends on the losses of the step.

    If not, several micro-batches do not run forward twice, and `weights` gets the losses of the
    first micro-batch.
    """

    def select_active(self, weights: Tensor) -> Tensor:
        """Leave out tasks that are not trained from weights that do not depend on losses.

        Args:
            weights: weights, shape (T,), whose sum is T.

        Returns:
            Weights of the same proportions whose sum is the number of tasks that are trained; 0 for
            the others.
        """
        if all(self.active):
            return weights
        pairs = zip(weights, self.active, strict=True)
        kept = torch.stack([weight if active else 0 * weight for weight, active in pairs])
        return kept * (sum(self.active) / kept.sum())

    @abstractmethod
    def weights(self, losses: Tensor) -> Tensor:
        """Return the loss weights of the step. Called once per optimizer step.

        Args:
            losses: losses of the joint batch without graph, shape (T,), in the order of
                `task_names`; 0 for a task without label in the batch.

        Returns:
            The loss weights, shape (T,), with a graph to the parameters of the method.
        """

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Return the scalar to minimize.

        Its derivatives with respect to the losses must be the weights.

        Args:
            weights: loss weights as returned by `weights`, shape (T,).
            losses: losses of the joint batch without graph, shape (T,).

        Returns:
            A scalar with a graph to the parameters of the method.
        """
        return (weights * losses).sum()

    def update_state(self, losses: Tensor) -> None:
        """Save what later steps need of the losses of this step.

        Args:
            losses: losses of the joint batch without graph, shape (T,).
        """

    def start_step(self, model: nn.Module, scale: LossScaler) -> TaskBackward:
        """Create one backward pass per micro-batch, of the weighted sum of the losses.

        Args:
            model: the model whose losses are balanced; not used.
            scale: applied to the weighted sum before its backward pass.

        Returns:
            The object that runs the backward passes of this step.
        """
        return WeightedLossBackward(self, scale)


class WeightedLossBackward(TaskBackward):
    """One backward pass per micro-batch, of the weighted task losses and the auxiliary losses.

    The auxiliary losses of the decoder are added as they are.

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
        """Keep the values of the losses.

        Args:
            losses: the losses of a micro-batch.
        """
        self._observed.append(self._method.stack_losses(losses.tasks).detach())

    def add(self, losses: Losses) -> None:
        """Keep the losses with their graph.

        Args:
            losses: the losses of a micro-batch.
        """
        self.observe(losses)
        self._added = losses

    def compute_weights(self) -> Tensor:
        """Compute the weights from the mean of the losses of all micro-batches.

        Returns:
            The weights, shape (T,), with a graph to the parameters of the method.
        """
        return self._method.weights(torch.stack(self._observed).mean(dim=0))

    def backward(self, weights: Tensor) -> None:
        """Run the backward pass of the weighted sum.

        Args:
            weights: the weights of the step, shape (T,).
        """
        losses, self._added = self._added, Losses({})
        self.backward_part(losses, weights)

    def backward_part(self, losses: Losses, weights: Tensor) -> Losses:
        """Run the backward pass of the weighted sum of the losses of some of the tasks.

        Args:
            losses: the losses of these tasks in a micro-batch, with their graph.
            weights: the weights of the step of all tasks, shape (T,).

        Returns:
            The same losses without graph.
        """
        weighted = [
            weight * losses.tasks[task]
            for weight, task in zip(weights.detach(), self._method.task_names, strict=True)
            if task in losses.tasks
        ]
        total = torch.stack([*weighted, *losses.aux_losses.values()]).sum()
        torch.autograd.backward(self._scale(total))
        return losses.detach()

    def finish(self, weights: Tensor, losses: Sequence[Losses]) -> BalancingOutput:
        """Run the backward pass to the parameters of the method, and update its state.

        Args:
            weights: the weights of the step, shape (T,), with a graph to the parameters of the
                method.
            losses: detached losses of each micro-batch.

        Returns:
            The total loss and the loss weights.
        """
        method = self._method
        joint = torch.stack([method.stack_losses(loss.tasks) for loss in losses]).mean(dim=0)
        total = method.total(weights, joint)
        if total.requires_grad:
            # One backward pass for all micro-batches.
            torch.autograd.backward(self._scale(len(losses) * total))
        method.update_state(joint)
        terms = [term for loss in losses for term in loss.aux_losses.values()]
        return BalancingOutput(
            total.detach() + sum(terms) / len(losses),
            dict(zip(method.task_names, weights.detach(), strict=True)),
        )


def validate_task_weights(weights: Iterable[str], names: Sequence[str]) -> None:
    """Check that the option `weights` names only tasks of the run.

    Args:
        weights: the task names in the option.
        names: the names of all tasks of the run.

    Raises:
        ConfigError: if there is a weight for any other task.
    """
    for task in weights:
        if task not in names:
            valid_names = ", ".join(names)
            raise ConfigError(
                f"balancing.weights: no task '{task}' in this run (choose from {valid_names})"
            )
