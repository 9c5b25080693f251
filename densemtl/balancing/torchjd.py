"""TorchJD's weightings (Quinton and Rey 2024; MIT), an extra: the one place that knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from densemtl.errors import ConfigError


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
