"""How tasks get on with each other in what they share.

Gradient cosines (Yu et al., NeurIPS 2020, "Gradient surgery", definition 1) tell whether two tasks
pull shared parameters the same way; the look-ahead affinity (Fifty et al., NeurIPS 2021,
"Efficiently identifying task groupings", eq. 2) what a step for one task does to another's loss.
Both are measured in evaluation mode, on given batches, and leave no trace in the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from densemtl.distributed.collectives import mean_over_ranks
from densemtl.runtime.execution import Precision
from densemtl.errors import ModelError
from densemtl.tasks.multi_task_loss import objective
from densemtl.backbones.backbone import Backbone
from densemtl.models.multi_task_model import DenseModel
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Batch

Stages = Mapping[str, Sequence[nn.Parameter]]
"""{place: the parameters that all tasks share there}."""

REST = "rest"


def shared_stages(model: DenseModel) -> Stages:
    """The shared parameters of a network, by the stage of the backbone in which they lie.

    A backbone that cannot be cut into stages is one place; what is shared outside it is "rest".
    Empty where tasks share no parameter.
    """
    shared = dict.fromkeys(each for each in _shared(model) if each.requires_grad)
    places: dict[str, list[nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, Backbone):
            for place, members in _places(module).items():
                places[place] = [each for each in members if each in shared]
    placed = {each for members in places.values() for each in members}
    places[REST] = [each for each in shared if each not in placed]
    return {place: members for place, members in places.items() if members}


def _shared(model: DenseModel) -> Sequence[nn.Parameter]:
    return model.parameter_groups().get(SHARED, [])


def _places(backbone: Backbone) -> dict[str, list[nn.Parameter]]:
    every = list(backbone.parameters())
    try:
        stages = [backbone.stage_modules(index) for index in range(len(backbone.spec))]
    except ModelError:
        return {"backbone": every}
    places = {
        f"stage {number}": [each for module in modules for each in module.parameters()]
        for number, modules in enumerate(stages, start=1)
    }
    staged = {each for members in places.values() for each in members}
    return {"stem": [each for each in every if each not in staged], **places}


class Relations:
    """Measures on the same model, tasks and number types.

    Args:
        model: whose shared parameters are looked at.
        tasks: all that are learnt.
        precision: where and how it runs.

    Raises:
        ModelError: tasks share no parameter.
    """

    def __init__(self, model: DenseModel, tasks: Sequence[Task], precision: Precision) -> None:
        self._model, self._tasks, self._precision = model, tasks, precision
        self.stages = shared_stages(model)
        if not self.stages:
            raise ModelError("tasks share no parameters, so their gradients never meet")

    def cosines(self, batch: Batch) -> dict[str, Tensor]:
        """{place: tasks x tasks cosines of gradients}; 0 where a task has no gradient there."""
        gradients = self._gradients(batch)
        return {
            place: _cosines([_joined(gradients[task.name], members) for task in self._tasks])
            for place, members in self.stages.items()
        }

    def affinity(self, batch: Batch, rate: float) -> Tensor:
        """Tasks x tasks: share of the column's loss that a step for the row's takes away.

        Args:
            batch: on which the step is taken and the losses are compared.
            rate: learning rate of the step, plain gradient descent on the shared parameters.
        """
        gradients = self._gradients(batch)
        before = self._losses_now(batch)
        rows = []
        for task in self._tasks:
            with self._stepped(gradients[task.name], rate):
                rows.append(1 - self._losses_now(batch) / before.clamp(min=1e-12))
        return torch.stack(rows)

    def _losses(self, batch: Batch) -> list[Tensor]:
        self._model.eval()
        batch = batch.to(self._precision.device)
        predictions = self._precision.run(self._model, batch.image)
        losses = objective(self._tasks, predictions, batch.targets).tasks
        return [losses[task.name] for task in self._tasks]

    @torch.no_grad()
    def _losses_now(self, batch: Batch) -> Tensor:
        return torch.stack(self._losses(batch)).float()

    def _gradients(self, batch: Batch) -> dict[str, dict[nn.Parameter, Tensor]]:
        """{task: {shared parameter: gradient of the task's loss}}."""
        members = [each for own in self.stages.values() for each in own]
        found = {}
        for task, loss in zip(self._tasks, self._losses(batch), strict=True):
            own = torch.autograd.grad(loss, members, retain_graph=True, allow_unused=True)
            pairs = zip(members, own, strict=True)
            found[task.name] = {
                each: torch.zeros_like(each) if grad is None else grad for each, grad in pairs
            }
            mean_over_ranks(found[task.name].values())
        return found

    @contextmanager
    def _stepped(self, gradients: Mapping[nn.Parameter, Tensor], rate: float) -> Iterator[None]:
        """One step down, and back to the very same weights."""
        kept = {each: each.detach().clone() for each in gradients}
        with torch.no_grad():
            for each, gradient in gradients.items():
                each.sub_(gradient, alpha=rate)
        try:
            yield
        finally:
            with torch.no_grad():
                for each, weight in kept.items():
                    each.copy_(weight)


def pairs_of(cosines: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """{"place/one~other": cosine} of every pair, for the log."""
    return {
        f"{place}/{names[i]}~{names[j]}": float(matrix[i, j])
        for place, matrix in cosines.items()
        for i, j in combinations(range(len(names)), 2)
    }


def _joined(gradients: Mapping[nn.Parameter, Tensor], members: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat([gradients[each].flatten().float() for each in members])


def _cosines(vectors: Sequence[Tensor]) -> Tensor:
    stacked = nn.functional.normalize(torch.stack(list(vectors)), dim=1)
    return stacked @ stacked.T
