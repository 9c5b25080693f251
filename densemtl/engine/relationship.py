"""Multilinear relationship networks (Long et al., NeurIPS 2017): a prior on layers of all tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.config.relationship import RelationshipConfig
from densemtl.errors import ConfigError
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.tensor_normal import (
    scale_to_unit_variances,
    to_correlation,
    update_factor,
    whiten,
)
from densemtl.tasks.base import Task
from densemtl.types import SharingWeights

MAX_INPUTS = 1024
"""Maximum number of inputs per output of a layer whose correlations are learned."""

RIDGE = 0.1
"""Fraction of the mean variance that is added to the variances. It limits the correlations, and
thereby the penalty of a difference between related tasks to 11 times that of unrelated tasks."""


class TaskRelationship(nn.Module):
    """Tensor-normal prior on the layers that are equal in all tasks.

    Long et al., "Learning Multiple Tasks with Multilinear Relationship Networks", NeurIPS 2017,
    equations 3 to 8. The correlations are buffers, which are saved in checkpoints. They follow from
    the parameters, and are therefore equal on all ranks.

    Only correlations are learned, and the variance of a layer remains that of its weights at the
    start. With the variances of the paper, the penalty of small weights is as large as that of
    large ones, so that weights that matter little for the losses shrink to 0.

    Args:
        config: the section `relationship` of the configuration.
        model: the model, whose parameters are read.
        tasks: the tasks of the model.

    Raises:
        ConfigError: if there is only one task, or no layer has the same shape in all tasks.
    """

    def __init__(
        self, config: RelationshipConfig, model: MultiTaskModel, tasks: Sequence[Task]
    ) -> None:
        super().__init__()
        self._config = config
        self._task_names = model.decoder.task_names
        layers = find_common_layers(model, tasks)
        if len(self._task_names) < 2:
            raise ConfigError("relationship: needs two or more tasks; remove it")
        if not layers:
            raise ConfigError(
                "relationship: no layer has the same shape in all tasks; use a head with hidden "
                "layers (deeplabv3, fpn or hrnetv2), and a decoder with one such head per task"
            )
        self._layer_names = tuple(layers)
        self.priors = nn.ModuleList(_LayerPrior(layer, config) for layer in layers.values())

    def compute_penalty(self) -> Tensor:
        """Compute the penalty, the sum of those of all layers.

        Returns:
            A scalar with a graph to the parameters of the layers.
        """
        return torch.stack([prior.compute_penalty() for prior in self._priors()]).sum()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the correlations from the weights, if they are due.

        Args:
            step: number of finished optimizer steps.
        """
        if step % self._config.every == 0:
            for prior in self._priors():
                prior.update()

    def compute_correlations(self) -> Mapping[str, SharingWeights]:
        """Compute the correlations of the tasks.

        Returns:
            {"relationship/LAYER": correlations} of each layer, and their mean under
            "relationship/mean".
        """
        matrices = [to_correlation(prior.task) for prior in self._priors()]
        entries = dict(zip(self._layer_names, matrices, strict=True))
        entries = {"mean": torch.stack(matrices).mean(dim=0), **entries}
        return {
            f"relationship/{name}": SharingWeights(self._task_names, self._task_names, matrix)
            for name, matrix in entries.items()
        }

    def _priors(self) -> Iterator[_LayerPrior]:
        for prior in self.priors:
            assert isinstance(prior, _LayerPrior)
            yield prior


class _LayerPrior(nn.Module):
    """Prior on one layer: Cholesky factors of the correlations, and a constant variance.

    Args:
        layer: the weights of the layer in each task.
        config: the section `relationship` of the configuration.
    """

    task: Tensor
    output: Tensor | None
    input: Tensor | None
    variance: Tensor

    def __init__(self, layer: Sequence[nn.Parameter], config: RelationshipConfig) -> None:
        super().__init__()
        self._layer, self._weight = tuple(layer), config.weight  # a tuple registers no parameters
        tasks, outputs, inputs = self._stack().shape
        has_inputs = "input" in config.update and inputs <= MAX_INPUTS
        sizes = {
            "task": tasks,
            "output": outputs if "output" in config.update else None,
            "input": inputs if has_inputs else None,
        }
        device, dtype = layer[0].device, layer[0].dtype
        for axis, size in sizes.items():
            identity = None if size is None else torch.eye(size, device=device, dtype=dtype)
            self.register_buffer(axis, identity)
        variance = self._stack().detach().square().mean()
        self.register_buffer("variance", torch.where(variance > 0, variance, 1.0))
        self._updated = [axis for axis in sizes if axis in config.update and sizes[axis]]

    def compute_penalty(self) -> Tensor:
        """Return the quadratic form of the weights, divided by their number.

        It is `weight` for the initial weights.
        """
        weights = self._stack()
        squares = whiten(weights, self._factors()).square().mean()
        return self._weight * squares / self.variance

    def update(self) -> None:
        """Estimate one correlation matrix after the other from the current weights."""
        weights = self._stack()
        for axis, name in enumerate(("task", "output", "input")):
            if name in self._updated:
                factor = update_factor(weights, self._factors(), axis, RIDGE)
                getattr(self, name).copy_(scale_to_unit_variances(factor))

    def _factors(self) -> list[Tensor | None]:
        return [self.task, self.output, self.input]

    def _stack(self) -> Tensor:
        """Return the weights of all tasks, shape (tasks, outputs, inputs)."""
        return torch.stack([weight.flatten(1) for weight in self._layer])


def find_common_layers(
    model: MultiTaskModel, tasks: Sequence[Task]
) -> dict[str, list[nn.Parameter]]:
    """Find the layers that have the same name and shape in all tasks.

    Backbones are left out, and so are biases, parameters of norms, and last layers, whose outputs
    are the logits of the tasks.

    Args:
        model: the model.
        tasks: the tasks of the model, possibly with auxiliary tasks.

    Returns:
        {name of the layer without that of the task: its weights in each task, in the order of
        `model.decoder.task_names`}.
    """
    names = {id(parameter): name for name, parameter in model.decoder.named_parameters()}
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    in_backbones = {id(weight) for module in backbones for weight in module.parameters()}
    channels = {task.name: task.channels for task in tasks}
    groups, layers_by_task = model.parameter_groups(), []
    for task in model.decoder.task_names:
        weights = [
            weight
            for weight in groups.get(task, ())
            if weight.ndim >= 2 and weight.requires_grad and id(weight) not in in_backbones
        ]
        layers_by_task.append(
            {_without_task(names[id(weight)], task): weight for weight in weights}
        )
    common = {}
    for name in layers_by_task[0]:
        layer = [layers.get(name) for layers in layers_by_task]
        found = [weight for weight in layer if weight is not None]
        outputs = [channels[task] for task in model.decoder.task_names]
        is_last = [len(weight) for weight in found] == outputs
        if (
            len(found) == len(layer)
            and len({weight.shape for weight in found}) == 1
            and not is_last
        ):
            common[name] = found
    return common


def _without_task(name: str, task: str) -> str:
    parts = name.split(".")
    if task in parts:
        parts.remove(task)
    return ".".join(parts).removesuffix(".weight")
