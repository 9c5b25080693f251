"""Which of two validations is better, when tasks disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from densemtl.tasks.base import Task
from densemtl.types import ProtocolName

SelectionScores = dict[str, float]
"""{task: the value that its weights are chosen by}."""


def get_selection_scores(
    scores: Mapping[str, Mapping[str, float]], tasks: Sequence[Task], protocol: ProtocolName
) -> SelectionScores:
    """The one number of each task that tells which weights are best."""
    return {task.name: scores[task.name][task.get_selection_metric(protocol)] for task in tasks}


def is_better(new: SelectionScores, old: SelectionScores | None, tasks: Sequence[Task]) -> bool:
    """Whether the mean relative gain over the tasks is positive; anything beats nothing.

    As Delta_m against the best so far, but relative to the larger of both values, so that a
    metric near 0 at the start of training does not drown the other tasks.
    """
    if old is None:
        return True
    gains = [_compute_gain(new[task.name], old[task.name], task.higher_is_better) for task in tasks]
    return sum(gains) > 0


def _compute_gain(new: float, old: float, higher_is_better: bool) -> float:
    if not (math.isfinite(new) and math.isfinite(old)):
        return float(math.isfinite(new)) - float(math.isfinite(old))
    scale = max(abs(new), abs(old))
    change = (new - old) / scale if scale else 0.0
    return change if higher_is_better else -change
