"""Curriculum of tasks (Pentina et al., CVPR 2015): phases, weights of added tasks, and anchor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.config.curriculum import CurriculumConfig
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import IGNORE_INDEX, SHARED, Batch

ChooseTasks = Callable[[Sequence[str], int], Sequence[str]]
"""Function from candidates and a number to that many tasks, which are added."""


class Curriculum:
    """Tasks that are trained in each phase of the training.

    Pentina et al., "Curriculum Learning of Multiple Tasks", CVPR 2015. A task that is not trained
    is like one without labels: it has no loss, balancing methods leave it out, and its own
    parameters do not change.

    Args:
        config: the section `curriculum` of the configuration.
        model: the model, on its device.
        tasks: names of all tasks that are learned.
        num_steps: number of optimizer steps of the run, without its extensions.
    """

    def __init__(
        self,
        config: CurriculumConfig,
        model: MultiTaskModel,
        tasks: Sequence[str],
        num_steps: int,
    ) -> None:
        ends = [0.0, *(phase.until for phase in config.phases)]
        self.starts = [round(end * num_steps) for end in ends[:-1]]
        self.config, self._tasks = config, tuple(tasks)
        self._middles = [ceil((a + b) / 2 * num_steps) for a, b in pairwise(ends)]
        self._ramp_steps = round(config.ramp * num_steps)
        self._groups = model.parameter_groups()
        self._phase = self._step = -1
        self._added_at: dict[str, int] = {}
        self._anchor: list[Tensor] = []

    @property
    def active_tasks(self) -> list[str]:
        """Names of the tasks that are trained in the current phase."""
        return [task for task in self._tasks if task in self._added_at]

    @property
    def active(self) -> tuple[bool, ...]:
        """Whether each task is trained in the current phase."""
        return tuple(task in self._added_at for task in self._tasks)

    def begin_phase(self, step: int, choose: ChooseTasks) -> bool:
        """Begin the phase of a step, unless it has begun already.

        Args:
            step: number of finished optimizer steps.
            choose: chooses the tasks to add if the phase gives only the number of tasks.

        Returns:
            Whether the phase begins.
        """
        phase = max(index for index, start in enumerate(self.starts) if start <= step)
        if phase == self._phase:
            return False
        tasks = self._select_tasks(phase, choose)
        self._added_at = {task: self._added_at.get(task, step) for task in tasks}
        self._phase = phase
        if phase > 0 and self.config.anchor:
            self._anchor = [weight.detach().clone() for weight in self._shared()]
        return True

    def _select_tasks(self, phase: int, choose: ChooseTasks) -> list[str]:
        wanted = self.config.phases[phase].tasks
        if not isinstance(wanted, int):
            return list(self._tasks if wanted == "all" else wanted)
        others = [task for task in self._tasks if task not in self._added_at]
        count = wanted - len(self._added_at)
        needs_choice = 0 < count < len(others)
        added = choose(others, count) if needs_choice else others[:count]
        return [*self._added_at, *added]

    def set_step(self, step: int) -> None:
        """Set the step that is trained next, which must be in the current phase.

        Args:
            step: number of finished optimizer steps.
        """
        self._step = step

    def select_labels(self, batch: Batch) -> Batch:
        """Remove the labels of tasks that are not trained.

        Args:
            batch: a batch.

        Returns:
            A batch in which all pixels of these tasks are ignored.
        """
        targets = {
            task: target if task in self._added_at else _ignore_all(target)
            for task, target in batch.targets.items()
        }
        return replace(batch, targets=targets)

    def scale_weights(self, weights: Tensor) -> Tensor:
        """Scale the loss weights of tasks that were added a short time ago.

        Args:
            weights: weights of the balancing method, shape (T,).

        Returns:
            The scaled weights, shape (T,).
        """
        factors = [self._get_factor(task) for task in self._tasks]
        if all(factor == 1 for factor in factors):
            return weights
        return torch.stack([weight * f for weight, f in zip(weights, factors, strict=True)])

    def _get_factor(self, task: str) -> float:
        """Return the factor of the weight of a task; 1 if it is trained from the start."""
        added_at = self._added_at.get(task, 0)
        if added_at == 0 or not self._ramp_steps:
            return 1.0
        return min(1.0, (self._step - added_at + 1) / self._ramp_steps)

    def compute_penalty(self) -> Tensor | None:
        """Compute the distance of the shared parameters from the start of the phase.

        Returns:
            A scalar with a graph to the parameters; None if the distance has no weight in the step.
        """
        if not self._anchor or self._step >= self._middles[self._phase]:
            return None
        pairs = zip(self._shared(), self._anchor, strict=True)
        squares = [(weight - start).square().sum() for weight, start in pairs]
        return self.config.anchor / 2 * torch.stack(squares).sum()

    def drop_gradients(self) -> None:
        """Remove the gradients of parameters that belong to tasks that are not trained.

        The optimizer then leaves them as they are, without weight decay.
        """
        for task in self._tasks:
            if task not in self._added_at:
                for parameter in self._groups.get(task, ()):
                    parameter.grad = None

    def _shared(self) -> list[nn.Parameter]:
        return [weight for weight in self._groups.get(SHARED, ()) if weight.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """Return the phase, its tasks with the steps at which they were added, and the anchor."""
        return {"phase": self._phase, "added_at": dict(self._added_at), "anchor": self._anchor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: if it does not fit the configuration or the model.
        """
        shared, anchor = self._shared(), list(state["anchor"])
        shapes = [weight.shape for weight in shared] if anchor else []
        added_at = {str(task): int(step) for task, step in state["added_at"].items()}
        if [each.shape for each in anchor] != shapes or not added_at.keys() <= set(self._tasks):
            raise ValueError("the curriculum does not fit")
        if not -1 <= int(state["phase"]) < len(self.starts):
            raise ValueError("the phase of the curriculum is out of range")
        self._phase, self._added_at = int(state["phase"]), added_at
        self._anchor = [start.to(weight) for start, weight in zip(anchor, shared, strict=False)]


def _ignore_all(target: Tensor) -> Tensor:
    """Return a target of the same shape in which all pixels are ignored."""
    return torch.full_like(target, torch.nan if target.is_floating_point() else IGNORE_INDEX)
