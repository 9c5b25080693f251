"""Base class of the methods that weight the gradients of tasks in the shared part of a model."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densemtl.balancing._gradients.collector import GradientCollector
from densemtl.balancing._gradients.features import (
    FeatureGradients,
    GradientTransform,
    find_shared_features,
)
from densemtl.balancing._gradients.parameters import ParameterGradients, shared_parameters
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.backward_passes import BalancingOutput, LossScaler, TaskBackward
from densemtl.balancing.base import Balancer, TaskWeights, validate_task_weights
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task
from densemtl.types import Losses

Scope = Literal["features", "parameters"]
"""Where gradients are compared: at the shared features, or in all shared parameters."""

_OLD_STATE_KEYS = {"memory": "state", "usual": "target_cosine"}
"""{key in older checkpoints: its current name}."""


class GradientBalancer(Balancer):
    """Base class of the gradient methods, which weight gradients in the shared part of the model.

    All other parameters follow the plain sum of the losses. Subclasses implement `weights`. Their
    constructors pass the options that they do not define on to this class as `**options`.

    A task without gradient is left out of a step. If a gradient is not finite, the step follows the
    plain sum of the others. If the weights cannot be computed, the step follows the plain sum of
    all gradients. Both cases emit a `RuntimeWarning`.

    Args:
        tasks: the tasks of the run.
        scope: where gradients are compared.
        weights: {task: factor of its loss, applied before the method}; 1 by default.

    Attributes:
        steps: number of optimizer steps so far.
        state: {name: tensor that the method keeps between steps}, on the CPU; saved in checkpoints.

    Raises:
        ConfigError: if a weight is for no task of the run.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: TaskWeights | None = None,
    ) -> None:
        super().__init__(tasks)
        task_weights = weights or {}
        validate_task_weights(task_weights, self.task_names)
        self.scope = scope
        self.task_weights = [task_weights.get(task, 1.0) for task in self.task_names]
        self.steps = 0
        self.state: dict[str, Tensor] = {}

    @abstractmethod
    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return one weight per task of a summary.

        If this raises any exception or a weight is not finite, the step follows the plain sum.

        Args:
            gradients: the gradients of two or more tasks of the run.

        Returns:
            The weights in double precision, shape (T,) with T the number of tasks in `gradients`.
        """

    def make_transform(self) -> GradientTransform | None:
        """Create the transform of the feature gradients in the next step.

        Returns:
            The transform; None if the gradients are not changed.
        """
        return None

    def validate_model(self, model: nn.Module) -> None:
        """Check that the model shares trainable parameters or features, as `scope` needs them.

        Args:
            model: the model to be trained.

        Raises:
            ConfigError: if there is only one task, the model shares no trainable parameters, or it
                has no shared features and `scope` is "features".
        """
        if len(self.task_names) < 2:
            raise ConfigError(
                "balancing.name: a gradient method needs two or more tasks (use fixed)"
            )
        if not shared_parameters(model):
            raise ConfigError(
                "balancing.name: this architecture shares no trainable parameters, which gradient "
                "methods need (use a loss-weighting method such as fixed or uncertainty)"
            )
        if self.scope == "features":
            find_shared_features(model)

    def start_step(self, model: nn.Module, scale: LossScaler) -> TaskBackward:
        """Create backward passes that collect one gradient per task.

        Args:
            model: the model whose losses are balanced.
            scale: applied to each loss before its backward pass.

        Returns:
            The object that runs the backward passes of this step.
        """
        collector: GradientCollector
        if self.scope == "parameters":
            collector = ParameterGradients(shared_parameters(model), len(self.task_names))
        else:
            features = find_shared_features(model)
            collector = FeatureGradients(features, len(self.task_names), self.make_transform())
        return GradientBackward(self, model, collector, scale)

    def compute_weights(self, gradients: GradientSummary, loss_scale: float) -> Tensor:
        """Return one weight per task of the run; 0 for tasks without gradient.

        Args:
            gradients: the gradients of all tasks of the run.
            loss_scale: the loss scale of mixed-precision training; 1 without.

        Returns:
            The weights in double precision, shape (T,).
        """
        squared_norms = gradients.gramian.diagonal()
        infinite = (~squared_norms.isfinite()).nonzero().flatten().tolist()
        if infinite:
            return self._exclude_nonfinite(infinite, loss_scale)
        present = squared_norms.nonzero().flatten().tolist()
        if len(present) < 2:
            return self._plain_sum()
        return self._weights_or_plain_sum(gradients.select(present))

    def _exclude_nonfinite(self, infinite: Sequence[int], loss_scale: float) -> Tensor:
        """Return weights that exclude tasks with non-finite gradients.

        With loss scaling, return the plain sum, so that the loss scaler detects the overflow.
        """
        weights = self._plain_sum()
        if loss_scale > 1:
            return weights
        names = self._join_names(infinite)
        self._warn(f"the gradient of {names} is not finite and is left out of this step")
        weights[list(infinite)] = 0
        return weights

    def _weights_or_plain_sum(self, gradients: GradientSummary) -> Tensor:
        """Return the weights of the method, or the plain sum with a warning if there are none."""
        weights = torch.zeros(len(self.task_names), dtype=torch.float64)
        try:
            weights[list(gradients.tasks)] = self.weights(gradients).double()
            reason = "they are not finite"
        except Exception as error:  # Solvers raise many types of errors, and none may stop a run.
            weights[0] = torch.nan
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if bool(weights.isfinite().all()):
            return weights
        names = self._join_names(gradients.tasks)
        self._warn(f"cannot compute weights for {names} ({reason}), using the plain sum")
        return self._plain_sum()

    def _plain_sum(self) -> Tensor:
        return torch.ones(len(self.task_names), dtype=torch.float64)

    def _join_names(self, tasks: Sequence[int]) -> str:
        return ", ".join(self.task_names[task] for task in tasks)

    def _warn(self, text: str) -> None:
        warnings.warn(f"balancing, step {self.steps}: {text}", RuntimeWarning, stacklevel=2)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state that is saved in addition to parameters and buffers.

        Returns:
            {"steps": number of steps, "state": {name: tensor}}.
        """
        return {"steps": self.steps, "state": _clone(self.state)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state.

        Args:
            state: what `get_extra_state` returned, possibly in an older version.
        """
        values = _rename(state)
        self.steps, self.state = values["steps"], _clone(_rename(values["state"]))


def _clone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def _rename(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved state with the current keys."""
    return {_OLD_STATE_KEYS.get(key, key): value for key, value in state.items()}


class GradientBackward(TaskBackward):
    """Backward passes that collect one gradient per task and continue with their weighted sum.

    Args:
        method: computes the weights.
        model: the model to be trained.
        collector: collects the gradients.
        scale: applied to each loss.
    """

    def __init__(
        self,
        method: GradientBalancer,
        model: nn.Module,
        collector: GradientCollector,
        scale: LossScaler,
    ) -> None:
        self.keeps_graph = self.needs_replay = collector.keeps_graph
        self._method, self._model = method, model
        self._collector, self._scale = collector, scale
        self._observed: list[Tensor] = []
        self._log_values: dict[str, float] = {}

    def recording(self) -> AbstractContextManager[object]:
        """Return the context in which the collector records the forward pass."""
        return self._collector.recording()

    def observe(self, losses: Losses) -> None:
        """Compare the gradients of a micro-batch, which then runs forward again.

        Args:
            losses: the losses of a micro-batch; they are emptied.
        """
        self._collector.observe(self._targets(losses))

    def add(self, losses: Losses) -> None:
        """Run the micro-batch backward as far as the gradients of the tasks are separate.

        Args:
            losses: the losses of a micro-batch; they are emptied.
        """
        self._collector.add(self._targets(losses))

    def _targets(self, losses: Losses) -> list[Tensor]:
        """Return one scaled loss per task, then the sum of the auxiliary losses; empty `losses`."""
        weighted = self._weigh(losses)
        self._observed.append(torch.stack(weighted).detach())
        targets = [self._scale(loss) for loss in weighted]
        if losses.aux_losses:
            targets.append(self._scale(torch.stack(list(losses.aux_losses.values())).sum()))
        losses.tasks.clear()
        losses.aux_losses.clear()
        return targets

    def _weigh(self, losses: Losses) -> list[Tensor]:
        pairs = zip(self._method.task_weights, self._method.task_names, strict=True)
        return [weight * losses.tasks[task] for weight, task in pairs]

    def compute_weights(self) -> Tensor:
        """Compute the weights of the joint batch. Synchronizes with the device once.

        Returns:
            The weights in double precision on the CPU, shape (T,).
        """
        gramian = self._collector.gramian()
        losses = torch.stack(self._observed).mean(dim=0).float()
        loss_scale = self._scale(torch.ones_like(losses[:1])) * len(self._observed)
        numbers = torch.cat([gramian.flatten(), losses, loss_scale]).cpu().double()
        count = len(losses)
        products, values = numbers[: count**2].view(count, count), numbers[count**2 : -1]
        self._method.steps += 1
        factor, tasks = float(numbers[-1]), tuple(range(count))
        gradients = GradientSummary(products / factor**2, values, tasks, self._method.steps)
        self._log_values = gradients.log_values(self._method.task_names)
        return self._method.compute_weights(gradients, factor)

    def backward(self, weights: Tensor) -> None:
        """Accumulate the weighted sum of the gradients in the shared part.

        Args:
            weights: the weights of the step, shape (T,).
        """
        self._collector.backward(weights.tolist())

    def finish(self, weights: Tensor, losses: Sequence[Losses]) -> BalancingOutput:
        """Return the result of the step, on the device of the losses.

        Args:
            weights: the weights of the step, shape (T,).
            losses: detached losses of each micro-batch.

        Returns:
            The total loss, the loss weights, and the norms and cosines of the gradients.
        """
        if bool((weights == 0).any()):
            _zero_nonfinite_grads(self._model)
        rows = [torch.stack([*self._weigh(loss), *loss.aux_losses.values()]) for loss in losses]
        values = torch.stack(rows).detach().mean(dim=0)
        names, count = self._method.task_names, len(weights)
        numbers = [*weights.tolist(), *self._log_values.values()]
        pinned = torch.tensor(numbers, pin_memory=values.is_cuda)  # a copy that does not wait
        logged = pinned.to(values.device, non_blocking=True)
        total = (logged[:count] * values[:count]).sum() + values[count:].sum()
        pairs = zip(logged[:count], self._method.task_weights, strict=True)
        return BalancingOutput(
            total,
            dict(zip(names, [weight * factor for weight, factor in pairs], strict=True)),
            dict(zip(self._log_values, logged[count:], strict=True)),
        )


def _zero_nonfinite_grads(model: nn.Module) -> None:
    """Set non-finite gradients to 0, which an excluded task leaves in its own parameters."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.nan_to_num_(0, 0, 0)
