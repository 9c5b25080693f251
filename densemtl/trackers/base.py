"""The interface of trackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from densemtl.errors import ConfigError


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told when a run starts or goes on.

    Attributes:
        folder: the run's. A tracker keeps there what it needs to find its own record again.
        title: in a few words.
        config: the resolved configuration, nested plain values.
        step: optimiser steps done; 0 at the start.
    """

    folder: Path
    title: str
    config: Mapping[str, Any]
    step: int = 0


class Tracker(ABC):
    """Shows what a run logs.

    Made before anything is trained, and started with each training, on the first rank alone. What
    it raises ends the tracker, not the run (`background.py`). `start` is called on the main thread,
    the others on one of the tracker's own, in order, so that a slow server holds up no step.
    """

    @abstractmethod
    def start(self, run_info: RunInfo) -> None:
        """Open the record of a run, the same one again when the run goes on."""

    @abstractmethod
    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by `kind/name`, such as `val/depth/rmse`; they may be NaN."""

    @abstractmethod
    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """An HxWx3 uint8 picture."""

    @abstractmethod
    def finish(self, failed: bool) -> None:
        """Write what is left and close; `failed` when the run ended by an error."""


def require_module(module: str, extra: str) -> None:
    """Check that a library is installed, without importing it.

    Raises:
        ConfigError: it is not; names the extra that brings it.
    """
    if find_spec(module) is None:
        raise ConfigError(f'trackers: {module}: pip install "densemtl[{extra}]" first')
