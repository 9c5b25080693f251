"""Methods computed by TorchJD (Quinton and Rey 2024; MIT), an optional dependency."""

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
    """Weighs gradients by one of TorchJD's weightings.

    Args:
        tasks: the tasks of the run.
        weighting_options: arguments of the weighting's constructor.

    Raises:
        ConfigError: the extra `balancing` is not installed.
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
        """Return the weights that TorchJD computes from the Gramian."""
        return self._weighting(gradients.gramian)


def make_weighting(name: str, **options: Any) -> Callable[[Tensor], Tensor]:
    """Return one of TorchJD's weightings: a function from Gramian to weights.

    It is applied to the Gramian scaled to mean diagonal 1: some weightings compare it with fixed
    thresholds, while gradients of a mean over pixels may have any size.

    Args:
        name: of the class in `torchjd.aggregation`.
        options: arguments of its constructor.

    Raises:
        ConfigError: TorchJD or a solver that it needs is not installed, or refuses an option.
    """
    try:
        import torchjd.aggregation as aggregation

        weighting = getattr(aggregation, name)(**options)
    except ImportError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f'balancing: pip install "densemtl[balancing]" first ({line})') from error
    except ValueError as error:
        raise ConfigError(f"balancing: {error}") from error
    return lambda gramian: weighting(gramian / gramian.diagonal().mean())


@contextmanager
def fork_rng_with_seed(seed: int) -> Iterator[None]:
    """Seed the CPU's random numbers inside, and restore them afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
