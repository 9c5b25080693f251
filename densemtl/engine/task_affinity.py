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

from densemtl.backbones.backbone import Backbone
from densemtl.distributed.collectives import all_reduce_mean_
from densemtl.errors import ModelError
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import SHARED, Batch

StageParameters = Mapping[str, Sequence[nn.Parameter]]
"""{place: the parameters that all tasks share there}."""

REST_STAGE = "rest"


def group_shared_parameters(model: MultiTaskModel) -> StageParameters:
    """The shared parameters of a network, by the stage of the backbone in which they lie.

    A backbone that cannot be cut into stages is one place; what is shared outside it is "rest".
    Empty where tasks share no parameter.
    """
    shared = dict.fromkeys(
        parameter for parameter in _get_shared_parameters(model) if parameter.requires_grad
    )
    stages: dict[str, list[nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, Backbone):
            for stage, members in _group_by_stage(module).items():
                stages[stage] = [parameter for parameter in members if parameter in shared]
    placed = {parameter for members in stages.values() for parameter in members}
    stages[REST_STAGE] = [parameter for parameter in shared if parameter not in placed]
    return {stage: members for stage, members in stages.items() if members}


def _get_shared_parameters(model: MultiTaskModel) -> Sequence[nn.Parameter]:
    return model.parameter_groups().get(SHARED, [])


def _group_by_stage(backbone: Backbone) -> dict[str, list[nn.Parameter]]:
    every = list(backbone.parameters())
    try:
        stages = [backbone.get_stage_modules(index) for index in range(len(backbone.feature_info))]
    except ModelError:
        return {"backbone": every}
    groups = {
        f"stage {number}": [parameter for module in modules for parameter in module.parameters()]
        for number, modules in enumerate(stages, start=1)
    }
    staged = {parameter for members in groups.values() for parameter in members}
    return {"stem": [parameter for parameter in every if parameter not in staged], **groups}


class TaskAffinity:
    """Measures on the same model, tasks and number types.

    Args:
        model: whose shared parameters are looked at.
        tasks: all that are learnt.
        execution: where and how it runs.

    Raises:
        ModelError: tasks share no parameter.
    """

    def __init__(
        self, model: MultiTaskModel, tasks: Sequence[Task], execution: ExecutionConfig
    ) -> None:
        self._model, self._tasks, self._execution = model, tasks, execution
        self.stages = group_shared_parameters(model)
        if not self.stages:
            raise ModelError("tasks share no parameters, so their gradients never meet")

    def compute_gradient_cosines(self, batch: Batch) -> dict[str, Tensor]:
        """{place: tasks x tasks cosines of gradients}; 0 where a task has no gradient there."""
        gradients = self._compute_gradients(batch)
        return {
            stage: _compute_pairwise_cosines(
                [_concat_gradients(gradients[task.name], members) for task in self._tasks]
            )
            for stage, members in self.stages.items()
        }

    def compute_affinity(self, batch: Batch, lr: float) -> Tensor:
        """Tasks x tasks: share of the column's loss that a step for the row's takes away.

        Args:
            batch: on which the step is taken and the losses are compared.
            lr: learning rate of the step, plain gradient descent on the shared parameters.
        """
        gradients = self._compute_gradients(batch)
        before = self._compute_loss_values(batch)
        rows = []
        for task in self._tasks:
            with self._temporary_step(gradients[task.name], lr):
                rows.append(1 - self._compute_loss_values(batch) / before.clamp(min=1e-12))
        return torch.stack(rows)

    def _compute_losses(self, batch: Batch) -> list[Tensor]:
        self._model.eval()
        batch = batch.to(self._execution.device)
        predictions = self._execution.forward(self._model, batch.image)
        losses = compute_task_losses(self._tasks, predictions, batch.targets).tasks
        return [losses[task.name] for task in self._tasks]

    @torch.no_grad()
    def _compute_loss_values(self, batch: Batch) -> Tensor:
        return torch.stack(self._compute_losses(batch)).float()

    def _compute_gradients(self, batch: Batch) -> dict[str, dict[nn.Parameter, Tensor]]:
        """{task: {shared parameter: gradient of the task's loss}}."""
        members = [parameter for group in self.stages.values() for parameter in group]
        gradients = {}
        for task, loss in zip(self._tasks, self._compute_losses(batch), strict=True):
            grads = torch.autograd.grad(loss, members, retain_graph=True, allow_unused=True)
            pairs = zip(members, grads, strict=True)
            gradients[task.name] = {
                parameter: torch.zeros_like(parameter) if grad is None else grad
                for parameter, grad in pairs
            }
            all_reduce_mean_(gradients[task.name].values())
        return gradients

    @contextmanager
    def _temporary_step(
        self, gradients: Mapping[nn.Parameter, Tensor], lr: float
    ) -> Iterator[None]:
        """One step down, and back to the very same weights."""
        saved_weights = {parameter: parameter.detach().clone() for parameter in gradients}
        with torch.no_grad():
            for parameter, gradient in gradients.items():
                parameter.sub_(gradient, alpha=lr)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weight in saved_weights.items():
                    parameter.copy_(weight)


def flatten_pairs(cosines: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """{"place/one~other": cosine} of every pair, for the log."""
    return {
        f"{stage}/{names[i]}~{names[j]}": float(matrix[i, j])
        for stage, matrix in cosines.items()
        for i, j in combinations(range(len(names)), 2)
    }


def _concat_gradients(
    gradients: Mapping[nn.Parameter, Tensor], parameters: Sequence[nn.Parameter]
) -> Tensor:
    return torch.cat([gradients[parameter].flatten().float() for parameter in parameters])


def _compute_pairwise_cosines(vectors: Sequence[Tensor]) -> Tensor:
    stacked = nn.functional.normalize(torch.stack(list(vectors)), dim=1)
    return stacked @ stacked.T
