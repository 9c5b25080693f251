"""Base class of the methods computed by TorchJD, an optional dependency.

TorchJD: Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024; license MIT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task


class TorchJDBalancer(GradientBalancer):
    """Base class of the methods that weight gradients by a weighting of TorchJD.

    Args:
        tasks: the tasks of the run.
        weighting_options: arguments of the constructor of the weighting.

    Raises:
        ConfigError: if the extra `balancing` is not installed.
    """

    weighting_name: ClassVar[str]
    """Name of the class in `torchjd.aggregation`."""

    def __init__(
        self,
        tasks: Sequence[Task],
        weighting_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(tasks, **options)
        self._weighting = make_weighting(self.weighting_name, **(weighting_options or {}))

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the weights that TorchJD computes from the Gramian.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        return self._weighting(gradients.gramian)


def make_weighting(name: str, **options: Any) -> Callable[[Tensor], Tensor]:
    """Create a weighting of TorchJD: a function from a Gramian to weights.

    It is applied to the Gramian scaled to mean diagonal 1, because some weightings compare the
    Gramian with fixed thresholds, while gradients of a mean over pixels may have any size.

    Args:
        name: name of the class in `torchjd.aggregation`.
        options: arguments of its constructor.

    Returns:
        A function from a Gramian, shape (T, T), to weights, shape (T,).

    Raises:
        ConfigError: if TorchJD or a solver that it needs is not installed, or if an option is
            invalid.
    """
    try:
        import torchjd.aggregation as aggregation

        weighting = getattr(aggregation, name)(**options)
    except ImportError as error:
        line = " ".join(str(error).split())
        raise ConfigError(
            f'balancing.name: needs TorchJD: pip install "densemtl[balancing]" first ({line})'
        ) from error
    except ValueError as error:
        raise ConfigError(f"balancing: {error}") from error
    return lambda gramian: weighting(gramian / gramian.diagonal().mean())


@contextmanager
def fork_rng_with_seed(seed: int) -> Iterator[None]:
    """Seed the random number generator of the CPU within the context, and restore it afterwards.

    Args:
        seed: the seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
