"""Gradients of the tasks at the shared features, the scope `features`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from densemtl.balancing._gradients.collector import GradientCollector, backward_each, is_used
from densemtl.balancing._gradients.linear_combination import (
    TaskGradient,
    gramian,
    weighted_sum_,
)
from densemtl.distributed.collectives import all_reduce_mean_, get_world_size
from densemtl.errors import ConfigError
from densemtl.layers.gradient_cut import DetachedFeatures, SharedFeatures


class GradientTransform(Protocol):
    """Change of the task gradients at the features that depends on those of the joint batch."""

    def observe(self, features: Sequence[Tensor], gradients: Sequence[TaskGradient]) -> None:
        """Record the gradients of one micro-batch.

        Args:
            features: the shared feature maps, each of shape (B, C, H, W).
            gradients: one gradient per task, with one entry per feature map.
        """

    def apply(self, features: Sequence[Tensor], gradients: Sequence[TaskGradient]) -> None:
        """Change the gradients of one micro-batch in place, after all micro-batches were observed.

        Args:
            features: the shared feature maps, each of shape (B, C, H, W).
            gradients: one gradient per task, with one entry per feature map.
        """


class FeatureGradients(GradientCollector):
    """Collector of one gradient per task at the shared features.

    The shared part of the network runs backward only once.

    Args:
        shared_features: the module that marks the features in the network.
        num_tasks: number of tasks T.
        transform: changes the gradients of the tasks after they were compared.
    """

    keeps_graph: ClassVar[bool] = True

    def __init__(
        self,
        shared_features: SharedFeatures,
        num_tasks: int,
        transform: GradientTransform | None = None,
    ) -> None:
        self._shared_features, self._num_tasks = shared_features, num_tasks
        self._transform = transform
        self._detached = DetachedFeatures()
        self._gramians: list[Tensor] = []
        self._features: list[Tensor] = []
        self._gradients: list[TaskGradient] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Detach the shared features of the micro-batch that runs in this context."""
        with self._shared_features.detach() as self._detached:
            yield

    def observe(self, targets: list[Tensor]) -> None:
        """Compare the gradients of a micro-batch, which then runs forward again.

        Args:
            targets: scalars to differentiate; the list is emptied.
        """
        leaves = self._detached.leaves
        features, gradients = self._select_used([_grad(target, leaves) for target in targets])
        targets.clear()
        self._compare(features, gradients)

    def add(self, targets: list[Tensor]) -> None:
        """Run the task-specific parts backward, down to the shared features.

        Args:
            targets: scalars to differentiate; the list is emptied.
        """
        leaves = self._detached.leaves
        gradients = [_take_grad(leaves) for _ in backward_each(targets)]
        self._features, self._gradients = self._select_used(gradients)

    def _select_used(
        self, gradients: Sequence[TaskGradient]
    ) -> tuple[list[Tensor], list[TaskGradient]]:
        """Return the features that a task or an auxiliary loss depends on, and the gradients."""
        columns = list(zip(*gradients, strict=True))
        used = [index for index, column in enumerate(columns) if is_used(column)]
        if not any(is_used(column[: self._num_tasks]) for column in columns):
            raise ConfigError(
                "balancing.scope: features: no trainable part of the model computes the shared "
                "features (set balancing.scope=parameters, or use a loss-weighting method such as "
                "fixed or uncertainty)"
            )
        features = [self._detached.features[index] for index in used]
        self._detached = DetachedFeatures()
        return features, [[row[index] for index in used] for row in gradients]

    def _compare(self, features: Sequence[Tensor], gradients: Sequence[TaskGradient]) -> None:
        of_tasks = gradients[: self._num_tasks]
        self._gramians.append(gramian(of_tasks))
        if self._transform is not None:
            self._transform.observe(features, of_tasks)

    def gramian(self) -> Tensor:
        """Sum the Gramians over micro-batches and ranks.

        Returns:
            The Gramian of the gradients at the features of the joint batch, shape (T, T).
        """
        if not self._gramians:  # There is a single micro-batch, which was not observed.
            self._compare(self._features, self._gradients)
        total = torch.stack(self._gramians).sum(dim=0)
        all_reduce_mean_([total])
        return total / get_world_size()

    def backward(self, weights: Sequence[float]) -> None:
        """Run the shared part of the micro-batch backward from the weighted sum.

        Args:
            weights: one weight per task.
        """
        if self._transform is not None:
            self._transform.apply(self._features, self._gradients[: self._num_tasks])
        padded = [*weights, *[1.0] * (len(self._gradients) - self._num_tasks)]
        sums = [weighted_sum_(column, padded) for column in zip(*self._gradients, strict=True)]
        features, self._features, self._gradients = self._features, [], []
        torch.autograd.backward(features, sums)


def _take_grad(leaves: Sequence[Tensor]) -> TaskGradient:
    """Return the `.grad` of the leaves and reset it."""
    gradient: TaskGradient = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return gradient


def _grad(target: Tensor, leaves: Sequence[Tensor]) -> TaskGradient:
    """Return the gradient at the leaves without changing any `.grad`."""
    if not (leaves and target.requires_grad):
        return [None] * len(leaves)
    return list(torch.autograd.grad(target, leaves, retain_graph=True, allow_unused=True))


def find_shared_features(model: nn.Module) -> SharedFeatures:
    """Return the module that marks the shared features of a model.

    Args:
        model: the model to search.

    Returns:
        The first `SharedFeatures` module.

    Raises:
        ConfigError: if no features are passed to all tasks.
    """
    for module in model.modules():
        if isinstance(module, SharedFeatures):
            return module
    raise ConfigError(
        "balancing.scope: features: this architecture passes no features to all tasks (set "
        "balancing.scope=parameters, or use a loss-weighting method such as fixed or uncertainty)"
    )
