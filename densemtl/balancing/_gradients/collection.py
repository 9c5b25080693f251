"""Collection of the gradient of each task, and the backward pass of their weighted sum.

There are two scopes:

- `features`: the gradients at the feature maps that the shared part of the network passes to the
  tasks. The shared part runs backward only once.
- `parameters`: the gradients of all parameters that the losses of several tasks depend on.

All other parameters, such as those of the heads, receive the gradient of the plain sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from densemtl.balancing._gradients.linear_combination import (
    TaskGradient,
    add_,
    gramian,
    weighted_sum_,
)
from densemtl.distributed.collectives import all_reduce_mean_, get_world_size
from densemtl.errors import ConfigError
from densemtl.layers.gradient_cut import DetachedFeatures, SharedFeatures
from densemtl.types import FUSION, SHARED


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


class GradientCollector(ABC):
    """Base class of the collectors of task gradients in one optimizer step.

    The `targets` are scalars to differentiate: one per task, then the sum of the auxiliary losses
    of the decoder if there are any. Each is removed from the list before its backward pass, so that
    the part of the graph on which only this target depends is freed as soon as possible.
    """

    keeps_graph: ClassVar[bool]
    """Whether `add` keeps the graph of the micro-batch for `backward`."""

    def recording(self) -> AbstractContextManager[object]:
        """Create the context in which a micro-batch must run forward.

        Returns:
            A context manager; by default, it does nothing.
        """
        return nullcontext()

    def observe(self, targets: list[Tensor]) -> None:
        """Record the gradients of a micro-batch without changing any `.grad`.

        Called before the first `add`, if there are several micro-batches and `keeps_graph`.

        Args:
            targets: scalars to differentiate; the list is emptied.
        """
        raise NotImplementedError

    @abstractmethod
    def add(self, targets: list[Tensor]) -> None:
        """Run a micro-batch backward as far as the gradients of the tasks are separate.

        Args:
            targets: scalars to differentiate; the list is emptied.
        """

    @abstractmethod
    def gramian(self) -> Tensor:
        """Compute the inner products of the task gradients in the joint batch.

        Returns:
            The Gramian, shape (T, T).
        """

    @abstractmethod
    def backward(self, weights: Sequence[float]) -> None:
        """Accumulate the gradients of what was added in `.grad`, weighted in the shared part.

        Args:
            weights: one weight per task.
        """


class ParameterGradients(GradientCollector):
    """Collector of one gradient per task for each parameter, summed over the micro-batches.

    Args:
        parameters: the candidates. A parameter that only one task depends on is not shared.
        num_tasks: number of tasks T.
    """

    keeps_graph: ClassVar[bool] = False

    def __init__(self, parameters: Sequence[nn.Parameter], num_tasks: int) -> None:
        self._parameters, self._num_tasks = parameters, num_tasks
        self._gradients: list[TaskGradient] = [[None] * len(parameters) for _ in range(num_tasks)]
        self._gradients.append([None] * len(parameters))  # of the auxiliary losses

    def add(self, targets: list[Tensor]) -> None:
        """Run one backward pass per target.

        Parameters that are not candidates receive their gradient directly.

        Args:
            targets: scalars to differentiate; the list is emptied.
        """
        previous = [parameter.grad for parameter in self._parameters]
        self._clear_grad()
        for number, _ in enumerate(_backward_each(targets)):
            gradient = [parameter.grad for parameter in self._parameters]
            pairs = zip(self._gradients[number], gradient, strict=True)
            self._gradients[number] = [add_(*pair) for pair in pairs]
            self._clear_grad()
        for parameter, grad in zip(self._parameters, previous, strict=True):
            parameter.grad = grad

    def _clear_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def gramian(self) -> Tensor:
        """Average the gradients over all ranks, and compute their inner products.

        Returns:
            The Gramian, shape (T, T).

        Raises:
            ConfigError: if no parameter is shared.
        """
        all_reduce_mean_(grad for row in self._gradients for grad in row if grad is not None)
        columns = zip(*self._gradients[: self._num_tasks], strict=True)
        shared = [column for column in columns if _is_shared(column)]
        if not shared:
            raise ConfigError(
                "balancing.scope: parameters: no shared parameter affects the losses of two tasks "
                "(use a loss-weighting method such as fixed or uncertainty)"
            )
        return gramian([list(row) for row in zip(*shared, strict=True)])

    def backward(self, weights: Sequence[float]) -> None:
        """Add the weighted sum to `.grad`, or the plain sum where only one task contributes.

        Args:
            weights: one weight per task.
        """
        plain = [1.0] * len(self._gradients)
        for index, parameter in enumerate(self._parameters):
            column = [row[index] for row in self._gradients]
            for row in self._gradients:
                row[index] = None
            if _is_used(column):
                shared = _is_shared(column[: self._num_tasks])
                total = weighted_sum_(column, [*weights, 1.0] if shared else plain)
                parameter.grad = add_(parameter.grad, total)


def _is_used(column: Sequence[Tensor | None]) -> bool:
    """Return whether at least one task depends on a tensor."""
    return any(entry is not None for entry in column)


def _is_shared(column: Sequence[Tensor | None]) -> bool:
    """Return whether at least two tasks depend on a tensor."""
    return sum(entry is not None for entry in column) > 1


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
        gradients = [_take_grad(leaves) for _ in _backward_each(targets)]
        self._features, self._gradients = self._select_used(gradients)

    def _select_used(
        self, gradients: Sequence[TaskGradient]
    ) -> tuple[list[Tensor], list[TaskGradient]]:
        """Return the features that at least one task depends on, and the gradients there."""
        columns = list(zip(*gradients, strict=True))
        used = [index for index, column in enumerate(columns) if _is_used(column)]
        if not used:
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


def _backward_each(targets: list[Tensor]) -> Iterator[None]:
    """Run one backward pass after the other, and yield after each."""
    while targets:
        target = targets.pop(0)
        if target.requires_grad:
            torch.autograd.backward(target, retain_graph=bool(targets))
        del target
        yield


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


def shared_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters of a model in the groups "shared" and "fusion".

    Args:
        model: a `MultiTaskModel`.

    Returns:
        The parameters, shared ones first.
    """
    groups = cast(Any, model).parameter_groups()
    members = [parameter for group in (SHARED, FUSION) for parameter in groups.get(group, ())]
    return [parameter for parameter in members if parameter.requires_grad]


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
