"""Interface of trackers."""

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
    """Information about a run that starts or resumes.

    Attributes:
        folder: the run folder. A tracker saves there what it needs to find its record again.
        title: short title of the run.
        config: the resolved configuration as nested plain values.
        step: number of completed optimizer steps; 0 for a new run.
    """

    folder: Path
    title: str
    config: Mapping[str, Any]
    step: int = 0


class Tracker(ABC):
    """Base class of trackers, which display what a run logs.

    A tracker is created before training. It is started with each training, on the main process
    only. An exception stops the tracker, not the run (`background.py`). `start` is called on the
    main thread. The other methods are called in order on a thread of this tracker, so that a slow
    server delays no training step.
    """

    @abstractmethod
    def start(self, run_info: RunInfo) -> None:
        """Open the record of a run; the same record again if the run resumes.

        Args:
            run_info: information about the run.
        """

    @abstractmethod
    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers.

        Args:
            step: number of the optimizer step.
            values: {"kind/name": number}, such as `val/depth/rmse`; may be NaN.
        """

    @abstractmethod
    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log an image.

        Args:
            step: number of the optimizer step.
            name: name of the image.
            image: uint8 RGB image, shape (H, W, 3).
        """

    @abstractmethod
    def finish(self, failed: bool) -> None:
        """Write pending data and close the record.

        Args:
            failed: whether the run ended by an error.
        """


def require_module(module: str, extra: str) -> None:
    """Check that a library is installed, without importing it.

    Args:
        module: name of the module.
        extra: name of the extra of this package that installs it.

    Raises:
        ConfigError: if it is not installed.
    """
    if find_spec(module) is None:
        raise ConfigError(
            f'trackers: {module} is not installed: pip install "densemtl[{extra}]" first'
        )
