"""Balancers that weigh the tasks' gradients in what they share."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densemtl.balancing.base import Balance, Balancer, Pass, Scale, Weights, check_weights
from densemtl.balancing.collect import (
    Collector,
    FeatureGradients,
    Goals,
    ParameterGradients,
    handover_of,
    shared_parameters,
)
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.errors import ConfigError
from densemtl.losses.objective import Losses
from densemtl.tasks.base import Task

Scope = Literal["features", "parameters"]
"""Where gradients meet: at the maps that tasks are handed, or in all shared parameters."""


class GradientBalancer(Balancer):
    """Weighs gradients where tasks share; everything else descends the plain sum of the losses.

    Subclasses write `weigh`. The weights of a step are of its gradients joined over all its
    batches and processes. A task without a gradient has no part in it. A step with a gradient that
    is not finite goes along the plain sum of the others, one whose weights cannot be found along
    that of all, with a warning.

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.

    Attributes:
        steps: taken so far.
        memory: {name: what a rule remembers from step to step}, on the CPU; checkpointed.

    Raises:
        ConfigError: a weight is for no task of the run.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
    ) -> None:
        super().__init__(tasks)
        given = weights or {}
        check_weights(given, self.task_names)
        self.scope = scope
        self.factors = [given.get(task, 1.0) for task in self.task_names]
        self.steps = 0
        self.memory: dict[str, Tensor] = {}

    @abstractmethod
    def weigh(self, seen: TaskGradients) -> Tensor:
        """One weight a task seen, of which there are two or more; T in double precision.

        Whatever it raises, and weights that are not finite, make the step a plain sum.
        """

    def check(self, model: nn.Module) -> None:
        """Refuse a model that shares nothing in the scope.

        Raises:
            ConfigError: it does not, or nothing that is trained; or there is one task alone.
        """
        if len(self.task_names) < 2:
            raise ConfigError("balancing: one task has no gradients to weigh: use fixed")
        if not shared_parameters(model):
            raise ConfigError(
                "balancing: this architecture shares no parameters that are trained, so that no "
                "gradients meet: weigh losses instead (fixed, uncertainty ..)"
            )
        if self.scope == "features":
            handover_of(model)

    def step(
        self, passes: Sequence[Pass], ahead: Iterable[Losses], model: nn.Module, scale: Scale
    ) -> Balance:
        """Collect the tasks' gradients, find their weights, descend the weighted sum."""
        collector = self._collector(model, partial(self._goals, scale=scale))
        told = collector.collect(passes, ahead)
        self.steps += 1
        seen, scaling = self._look(collector.gramian(), told, scale)
        weights = self._decide(seen, scaling)
        collector.descend(weights)
        if 0 in weights:
            _mend(model)
        return self._balance(told, seen, weights)

    def _collector(self, model: nn.Module, goals: Goals) -> Collector:
        count = len(self.task_names)
        if self.scope == "parameters":
            return ParameterGradients(shared_parameters(model), count, goals)
        return FeatureGradients(handover_of(model), count, goals)

    def _goals(self, losses: Losses, scale: Scale) -> list[Tensor]:
        """Each task's loss, then the architecture's own terms, as they go backward."""
        goals = [scale(loss) for loss in self._weighted(losses)]
        terms = list(losses.terms.values())
        return [*goals, scale(torch.stack(terms).sum())] if terms else goals

    def _weighted(self, losses: Losses) -> list[Tensor]:
        pairs = zip(self.factors, self.task_names, strict=True)
        return [factor * losses.tasks[task] for factor, task in pairs]

    def _look(
        self, gramian: Tensor, told: Sequence[Losses], scale: Scale
    ) -> tuple[TaskGradients, float]:
        """What to weigh, and by what the losses were scaled up; waits for the device once."""
        losses = torch.stack([torch.stack(self._weighted(each)) for each in told]).detach()
        losses = losses.mean(dim=0).float()
        scaling = scale(torch.ones_like(losses[:1])) * len(told)
        numbers = torch.cat([gramian.flatten(), losses, scaling]).cpu().double()
        count = len(self.task_names)
        products, values = numbers[: count**2].view(count, count), numbers[count**2 : -1]
        factor = float(numbers[-1])
        numbered = tuple(range(count))
        return TaskGradients(products / factor**2, values, numbered, self.steps), factor

    def _decide(self, seen: TaskGradients, scaling: float) -> list[float]:
        """One weight a task of the run."""
        squares = seen.gramian.diagonal()
        broken = [i for i, finite in enumerate(squares.isfinite().tolist()) if not finite]
        if broken:
            return self._without(broken, scaling)
        present = squares.nonzero().flatten().tolist()
        return self._weights(seen.only(present)) if len(present) > 1 else [1.0] * len(squares)

    def _without(self, broken: Sequence[int], scaling: float) -> list[float]:
        """Plain sum of the others. But loss scaling must see the overflow, to scale less."""
        if scaling > 1:
            return [1.0] * len(self.task_names)
        self._warn(f"gradient of {self._named(broken)} is not finite, step without it")
        return [float(task not in broken) for task in range(len(self.task_names))]

    def _weights(self, seen: TaskGradients) -> list[float]:
        """The rule's, 0 for tasks without gradient; else a plain sum."""
        weights = torch.zeros(len(self.task_names), dtype=torch.float64)
        try:
            weights[list(seen.tasks)] = self.weigh(seen).double()
            reason = "they are not finite"
        except Exception as error:  # whatever solvers raise must not end a run
            weights[0] = torch.nan
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if bool(weights.isfinite().all()):
            return weights.tolist()
        self._warn(f"no weights for {self._named(seen.tasks)} ({reason}), plain sum")
        return [1.0] * len(weights)

    def _named(self, tasks: Sequence[int]) -> str:
        return ", ".join(self.task_names[task] for task in tasks)

    def _warn(self, text: str) -> None:
        warnings.warn(f"balancing, step {self.steps}: {text}", RuntimeWarning, stacklevel=2)

    def _balance(
        self, told: Sequence[Losses], seen: TaskGradients, weights: Sequence[float]
    ) -> Balance:
        """For the log, on the losses' device."""
        totals = [[*self._weighted(each), *each.terms.values()] for each in told]
        values = torch.stack([torch.stack(each) for each in totals]).detach().mean(dim=0)
        measures = seen.measures(self.task_names)
        numbers = torch.tensor([*weights, *measures.values()], device=values.device)
        count = len(weights)
        total = (numbers[:count] * values[:count]).sum() + values[count:].sum()
        used = [weight * factor for weight, factor in zip(numbers, self.factors, strict=False)]
        return Balance(
            total,
            dict(zip(self.task_names, used, strict=True)),
            dict(zip(measures, numbers[count:], strict=True)),
        )

    def get_extra_state(self) -> dict[str, Any]:
        """What is checkpointed besides parameters and buffers."""
        return {"steps": self.steps, "memory": _copied(self.memory)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_extra_state` gave."""
        self.steps, self.memory = state["steps"], _copied(state["memory"])


def _copied(memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in memory.items()}


def _mend(model: nn.Module) -> None:
    """Put 0 where a gradient that was left out is not finite in what its task alone trains."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.nan_to_num_(0, 0, 0)
