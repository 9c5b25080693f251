"""Fixtures and settings of all tests: one thread, reproducible hypothesis, small tasks."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import tests.helpers.collector  # noqa: F401  # before large imports

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from densemtl import registry
from densemtl.io import atomic
from densemtl.tasks.base import Task
from densemtl.types import IGNORE_INDEX, Size
from tests.helpers import fast_runs

settings.register_profile("densemtl", derandomize=True, deadline=None, database=None)
settings.load_profile("densemtl")

THREE_CLASSES = {"class_names": ["wall", "floor", "chair"]}
TASK_OPTIONS: dict[str, dict[str, Any]] = {
    "semseg": THREE_CLASSES,
    "human_parts": THREE_CLASSES,
    "depth": {},
    "normals": {},
    "edge": {},
    "saliency": {},
    "classification": THREE_CLASSES,
    "binary": {},
    "regression": {"channels": 2},
    "direction": {"channels": 2},
}
"""The six tasks and the four generic kinds, with their required options."""


def pytest_collection_finish() -> None:
    """Exclude the objects of imported modules from garbage collection, as they stay in memory."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _use_one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


@pytest.fixture(autouse=True, scope="session")
def _do_not_wait_for_the_disk() -> Iterator[None]:
    """Skip fsync, which protects files from power loss and takes a sixth of the time of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_fsync", lambda file: None)
        yield


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Create networks and random tensors in float64; see `tests/helpers/exact.py`."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True, scope="session")
def _run_fast() -> None:
    fast_runs.skip_figures()
    fast_runs.keep_scenes()


@pytest.fixture
def drawn_figures() -> Iterator[None]:
    """Draw figures, which are empty files in other tests."""
    with fast_runs.drawn_figures():
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def make_task() -> Callable[..., Task]:
    """Return a function that creates a task: `make_task("depth", loss="berhu")`.

    Required options that are not given are taken from `TASK_OPTIONS`.
    """

    def make(name: str, **options: Any) -> Task:
        return registry.create("tasks", name, name, options=TASK_OPTIONS[name] | options)

    return make


@pytest.fixture(params=TASK_OPTIONS)
def any_task(request: pytest.FixtureRequest, make_task: Callable[..., Task]) -> Task:
    """Return each of the six tasks and four generic kinds in turn."""
    return make_task(request.param)


@pytest.fixture
def draw_label() -> Callable[..., NDArray[np.generic]]:
    """Return a function that draws a random label: `draw_label(task, size, rng, void=0.2)`.

    The label has the layout of `Sample.targets`; `void` is the fraction of ignored pixels.
    """

    def draw(
        task: Task, size: Size, rng: np.random.Generator, void: float = 0.2
    ) -> NDArray[np.generic]:
        label = task.make_empty_label(size)
        if label.dtype == np.uint8:
            label = rng.integers(0, max(task.channels, 2), size).astype(np.uint8)
            label[rng.random(size) < void] = IGNORE_INDEX
            return label
        label = rng.normal(size=label.shape).astype(np.float32)
        if hasattr(task, "reduction"):
            label /= np.linalg.norm(label, axis=-1, keepdims=True)
        else:
            label = np.abs(label) + np.float32(0.5)
        label[rng.random(size) < void] = np.nan
        return label

    return draw
