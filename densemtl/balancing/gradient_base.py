"""Base class of the methods that weigh the gradients of the tasks in what they share."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densemtl.balancing._gradients.collection import (
    FeatureGradients,
    GradientCollector,
    GradientTransform,
    ParameterGradients,
    find_shared_features,
    shared_parameters,
)
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.base import (
    Balancer,
    BalancingOutput,
    LossScaler,
    TaskBackward,
    TaskWeights,
    validate_task_weights,
)
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task
from densemtl.types import Losses

Scope = Literal["features", "parameters"]
"""Where gradients are compared: at the shared features, or in all shared parameters."""

_OLD_STATE_KEYS = {"memory": "state", "usual": "target_cosine"}
"""{key in older checkpoints: its current name}."""


class GradientBalancer(Balancer):
    """Weighs the gradients where tasks share; everything else follows the plain sum of the losses.

    Subclasses implement `weights`. Their constructors pass the options that they do not define
    themselves on to this class as `**options`. A task without gradient takes no part in a step. If
    a gradient is not finite, the step follows the plain sum of the others; if the weights cannot be
    computed, it follows the plain sum of all. A warning reports either.

    Args:
        tasks: the tasks of the run.
        scope: where gradients are compared.
        weights: {task: factor of its loss before anything else}; 1 by default.

    Attributes:
        steps: number of optimizer steps so far.
        state: {name: tensor that the method keeps between steps}, on the CPU; saved in checkpoints.

    Raises:
        ConfigError: a weight is for no task of the run.
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
        """Return one weight per task in the summary, which has two or more; T, double precision.

        On any exception, and if weights are not finite, the step follows the plain sum.
        """

    def make_transform(self) -> GradientTransform | None:
        """Return what changes the gradients at the features in the next step, if anything does."""
        return None

    def validate_model(self, model: nn.Module) -> None:
        """Check that the model shares something in the scope.

        Raises:
            ConfigError: it does not, or nothing trainable; or there is only one task.
        """
        if len(self.task_names) < 2:
            raise ConfigError("balancing: one task has no gradients to weigh: use fixed")
        if not shared_parameters(model):
            raise ConfigError(
                "balancing: this architecture shares no parameters that are trained, so that no "
                "gradients meet: weigh losses instead (fixed, uncertainty ..)"
            )
        if self.scope == "features":
            find_shared_features(model)

    def start_step(self, model: nn.Module, scale: LossScaler) -> TaskBackward:
        """Return backward passes that collect one gradient per task."""
        collector: GradientCollector
        if self.scope == "parameters":
            collector = ParameterGradients(shared_parameters(model), len(self.task_names))
        else:
            features = find_shared_features(model)
            collector = FeatureGradients(features, len(self.task_names), self.make_transform())
        return GradientBackward(self, model, collector, scale)

    def compute_weights(self, gradients: GradientSummary, loss_scale: float) -> Tensor:
        """Return one weight per task of the run, 0 for tasks without gradient.

        Args:
            gradients: of all tasks of the run.
            loss_scale: of mixed-precision training; 1 without.
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
        """Return weights 0 for these tasks, but let a loss scaler see that there is an overflow."""
        weights = self._plain_sum()
        if loss_scale > 1:
            return weights
        self._warn(f"gradient of {self._join_names(infinite)} is not finite, step without it")
        weights[list(infinite)] = 0
        return weights

    def _weights_or_plain_sum(self, gradients: GradientSummary) -> Tensor:
        weights = torch.zeros(len(self.task_names), dtype=torch.float64)
        try:
            weights[list(gradients.tasks)] = self.weights(gradients).double()
            reason = "they are not finite"
        except Exception as error:  # solvers raise many types, and none may end a run
            weights[0] = torch.nan
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if bool(weights.isfinite().all()):
            return weights
        self._warn(f"no weights for {self._join_names(gradients.tasks)} ({reason}), plain sum")
        return self._plain_sum()

    def _plain_sum(self) -> Tensor:
        return torch.ones(len(self.task_names), dtype=torch.float64)

    def _join_names(self, tasks: Sequence[int]) -> str:
        return ", ".join(self.task_names[task] for task in tasks)

    def _warn(self, text: str) -> None:
        warnings.warn(f"balancing, step {self.steps}: {text}", RuntimeWarning, stacklevel=2)

    def get_extra_state(self) -> dict[str, Any]:
        """Return what is saved besides parameters and buffers."""
        return {"steps": self.steps, "state": _clone(self.state)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_extra_state` returned."""
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
        model: the model.
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
        """Return the context in which the collector sees the forward pass."""
        return self._collector.recording()

    def observe(self, losses: Losses) -> None:
        """Compare the gradients of a micro-batch that is run again afterwards."""
        self._collector.observe(self._targets(losses))

    def add(self, losses: Losses) -> None:
        """Run the micro-batch backward as far as the gradients of the tasks are separate."""
        self._collector.add(self._targets(losses))

    def _targets(self, losses: Losses) -> list[Tensor]:
        """Return one scaled loss per task, then the architecture's own terms; empties `losses`."""
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
        """Return the weights of the joint batch; waits for the device once."""
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
        """Accumulate the weighted sum of the gradients where they are shared."""
        self._collector.backward(weights.tolist())

    def finish(self, weights: Tensor, losses: Sequence[Losses]) -> BalancingOutput:
        """Return the values for the log, on the device of the losses."""
        if bool((weights == 0).any()):
            _zero_nonfinite_grads(self._model)
        rows = [torch.stack([*self._weigh(loss), *loss.aux_losses.values()]) for loss in losses]
        values = torch.stack(rows).detach().mean(dim=0)
        names, count = self._method.task_names, len(weights)
        numbers = [*weights.tolist(), *self._log_values.values()]
        logged = torch.tensor(numbers, device=values.device)
        total = (logged[:count] * values[:count]).sum() + values[count:].sum()
        pairs = zip(logged[:count], self._method.task_weights, strict=True)
        return BalancingOutput(
            total,
            dict(zip(names, [weight * factor for weight, factor in pairs], strict=True)),
            dict(zip(self._log_values, logged[count:], strict=True)),
        )


def _zero_nonfinite_grads(model: nn.Module) -> None:
    """Replace non-finite entries, which an excluded task leaves in the parameters of its own."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.nan_to_num_(0, 0, 0)
