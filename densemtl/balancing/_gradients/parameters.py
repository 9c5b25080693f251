"""Gradients of the tasks for each shared parameter, the scope `parameters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from densemtl.balancing._gradients.collector import GradientCollector, backward_each, is_used
from densemtl.balancing._gradients.linear_combination import (
    TaskGradient,
    add_,
    gramian,
    weighted_sum_,
)
from densemtl.distributed.collectives import all_reduce_mean_
from densemtl.errors import ConfigError
from densemtl.types import FUSION, SHARED


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
        for number, _ in enumerate(backward_each(targets)):
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
            if is_used(column):
                shared = _is_shared(column[: self._num_tasks])
                total = weighted_sum_(column, [*weights, 1.0] if shared else plain)
                parameter.grad = add_(parameter.grad, total)


def _is_shared(column: Sequence[Tensor | None]) -> bool:
    """Return whether at least two tasks depend on a tensor."""
    return sum(entry is not None for entry in column) > 1


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
