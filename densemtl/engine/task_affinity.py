"""Affinity of tasks in their shared parameters: gradient cosines and look-ahead affinity.

- Gradient cosines (Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020,
  definition 1) are positive if the losses of two tasks decrease in similar directions.
- The look-ahead affinity (Fifty et al., "Efficiently identifying task groupings for multi-task
  learning", NeurIPS 2021, eq. 2) is the effect of an optimizer step for one task on the loss of
  another task.

Both are measured in evaluation mode on given batches, and do not change the weights of the model.
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
"""{stage: its parameters that all tasks share}."""

REST_STAGE = "rest"
"""Name of the group of shared parameters outside the backbone."""


def group_shared_parameters(model: MultiTaskModel) -> StageParameters:
    """Group the trainable shared parameters of a model by the stages of its backbone.

    Args:
        model: the model.

    Returns:
        {stage: parameters} with the keys "stem", "stage 1" and so on, or "backbone" if the backbone
        cannot be split into stages; shared parameters outside the backbone are in "rest". Groups
        without parameters are left out, so the result is empty if tasks share no parameters.
    """
    shared = dict.fromkeys(
        parameter for parameter in _get_shared_parameters(model) if parameter.requires_grad
    )
    stages: dict[str, list[nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, Backbone):
            for stage, members in _group_by_stage(module).items():
                stages[stage] = [parameter for parameter in members if parameter in shared]
    staged = {parameter for members in stages.values() for parameter in members}
    stages[REST_STAGE] = [parameter for parameter in shared if parameter not in staged]
    return {stage: members for stage, members in stages.items() if members}


def _get_shared_parameters(model: MultiTaskModel) -> Sequence[nn.Parameter]:
    return model.parameter_groups().get(SHARED, [])


def _group_by_stage(backbone: Backbone) -> dict[str, list[nn.Parameter]]:
    parameters = list(backbone.parameters())
    try:
        stages = [backbone.get_stage_modules(index) for index in range(len(backbone.feature_info))]
    except ModelError:
        return {"backbone": parameters}
    groups = {
        f"stage {number}": [parameter for module in modules for parameter in module.parameters()]
        for number, modules in enumerate(stages, start=1)
    }
    staged = {parameter for members in groups.values() for parameter in members}
    return {"stem": [parameter for parameter in parameters if parameter not in staged], **groups}


class TaskAffinity:
    """Gradient cosines and look-ahead affinity of the tasks of a model.

    Args:
        model: the model; its shared parameters are used.
        tasks: all tasks that are trained.
        execution: device, autocast type and memory layout.

    Raises:
        ModelError: if tasks share no parameters.
    """

    def __init__(
        self, model: MultiTaskModel, tasks: Sequence[Task], execution: ExecutionConfig
    ) -> None:
        self._model, self._tasks, self._execution = model, tasks, execution
        self.stages = group_shared_parameters(model)
        if not self.stages:
            raise ModelError("tasks share no parameters, so their gradients cannot be compared")

    def compute_gradient_cosines(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cosine similarities of the gradients of the task losses.

        Args:
            batch: the batch on which the gradients are computed.

        Returns:
            {stage: cosines, shape (T, T)} for T tasks; 0 for a task without gradient.
        """
        gradients = self._compute_gradients(batch)
        return {
            stage: _compute_pairwise_cosines(
                [_concat_gradients(gradients[task.name], members) for task in self._tasks]
            )
            for stage, members in self.stages.items()
        }

    def compute_affinity(self, batch: Batch, lr: float) -> Tensor:
        """Compute the look-ahead affinity.

        Args:
            batch: the batch on which the step is taken and the losses are compared.
            lr: learning rate of the step, which is plain gradient descent on the shared parameters.

        Returns:
            Affinities, shape (T, T) for T tasks. Entry (i, j) is the relative decrease of the loss
            of task j by a step for task i.
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
        predictions = self._execution.forward(self._model, batch.model_input)
        args = self._tasks, predictions, batch.targets, batch.image
        losses = compute_task_losses(*args).tasks
        return [losses[task.name] for task in self._tasks]

    @torch.no_grad()
    def _compute_loss_values(self, batch: Batch) -> Tensor:
        return torch.stack(self._compute_losses(batch)).float()

    def _compute_gradients(self, batch: Batch) -> dict[str, dict[nn.Parameter, Tensor]]:
        """Return {task: {shared parameter: gradient of the loss of the task}}."""
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
        """Take a gradient descent step, and restore the exact weights on exit."""
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
    """Return the cosines of all pairs of tasks, for the log.

    Args:
        cosines: {stage: symmetric matrix of cosines, shape (T, T)}.
        names: names of the T tasks.

    Returns:
        {"stage/first~second": cosine}, each pair once.

    Example:
        >>> cosines = {"stem": torch.tensor([[1.0, 0.5], [0.5, 1.0]])}
        >>> flatten_pairs(cosines, ["semseg", "depth"])
        {'stem/semseg~depth': 0.5}
    """
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
