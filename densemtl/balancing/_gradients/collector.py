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
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor


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


def backward_each(targets: list[Tensor]) -> Iterator[None]:
    """Run one backward pass after the other.

    Args:
        targets: scalars to differentiate; the list is emptied.

    Yields:
        Nothing, after each backward pass.
    """
    while targets:
        target = targets.pop(0)
        if target.requires_grad:
            torch.autograd.backward(target, retain_graph=bool(targets))
        del target
        yield


def is_used(column: Sequence[Tensor | None]) -> bool:
    """Return whether at least one task depends on a tensor.

    Args:
        column: the gradient of each task.

    Returns:
        True if one of them is not None.
    """
    return any(entry is not None for entry in column)
