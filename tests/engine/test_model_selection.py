"""Tests of the selection of the best validation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from densemtl.engine.model_selection import compute_mean_gain, get_selection_scores
from densemtl.tasks.base import Task


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task("semseg"), make_task("depth")]


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        ((30, 1.0), (20, 1.0), True),
        ((20, 0.9), (20, 1.0), True),
        ((20, 1.1), (20, 1.0), False),
        ((22, 1.2), (20, 1.0), False),
        ((30, 1.1), (20, 1.0), True),
        ((20, 1.0), (20, 1.0), False),
        ((0, 1.0), (0, 1.1), True),
        ((math.nan, 1.0), (20, 1.0), False),
        ((20, 1.0), (math.nan, 1.0), True),
    ],
)
def test_best_validation_has_a_positive_mean_relative_gain(
    tasks: list[Task], new: tuple[float, float], old: tuple[float, float], better: bool
) -> None:
    def make_scores(values: tuple[float, float]) -> dict[str, float]:
        return {task.name: value for task, value in zip(tasks, values, strict=True)}

    assert (compute_mean_gain(make_scores(new), make_scores(old), tasks) > 0) is better


def test_first_validation_is_always_better(tasks: list[Task]) -> None:
    assert compute_mean_gain({"semseg": math.nan, "depth": math.nan}, None, tasks) > 0


def test_selection_scores_hold_one_metric_per_task(
    tasks: list[Task], make_task: Callable[..., Task]
) -> None:
    scores = {"semseg": {"mIoU": 3.0, "x": 1.0}, "depth": {"rmse": 2.0, "rmse_per_image": 5.0}}
    assert get_selection_scores(scores, tasks, "survey") == {"semseg": 3.0, "depth": 2.0}
    edges = {"edge": {"pixel_maxF": 4.0}}
    assert get_selection_scores(edges, [make_task("edge")], "survey") == {"edge": 4.0}
