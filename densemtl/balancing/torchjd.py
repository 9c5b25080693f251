"""TorchJD's weightings (Quinton and Rey 2024; MIT), an extra: the one place that knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from densemtl.balancing.base import Weights
from densemtl.balancing.gradient import GradientBalancer, Scope
from densemtl.balancing.task_gradients import TaskGradients
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task


def weighting(name: str, **options: Any) -> Callable[[Tensor], Tensor]:
    """A weighting by its class's name: Gramian -> weights.

    It is given the Gramian of mean diagonal 1. Some weightings compare it with fixed numbers, while
    gradients of a mean over pixels may be as small as they like.

    Raises:
        ConfigError: TorchJD or a solver that it needs is not installed, or refuses an option.
    """
    try:
        import torchjd.aggregation as library

        weigh = getattr(library, name)(**options)
    except ImportError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f'balancing: pip install "densemtl[balancing]" first ({line})') from error
    except ValueError as error:
        raise ConfigError(f"balancing: {error}") from error
    return lambda gramian: weigh(gramian / gramian.diagonal().mean())


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """Random numbers on the CPU that depend on a number alone; the course of all others goes on."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)
        yield


class TorchJDBalancer(GradientBalancer):
    """A rule that is one of TorchJD's weightings, without options of its own.

    Args:
        tasks: the run's tasks.
        scope: where gradients are compared.
        weights: {task: factor on its loss before anything else}; 1 where left out.

    Raises:
        ConfigError: the extra `balancing` is not installed.
    """

    torchjd_name: ClassVar[str]
    """Name of its class there."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scope: Scope = "features",
        weights: Weights | None = None,
    ) -> None:
        super().__init__(tasks, scope=scope, weights=weights)
        self._weigh = weighting(self.torchjd_name)

    def weigh(self, seen: TaskGradients) -> Tensor:
        """As it does by the Gramian."""
        return self._weigh(seen.gramian)
