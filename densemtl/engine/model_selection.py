"""Selection of the best weights by the validation scores of all tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from densemtl.tasks.base import Task
from densemtl.types import ProtocolName

SelectionScores = dict[str, float]
"""{task: value of its selection metric}."""


def get_selection_scores(
    scores: Mapping[str, Mapping[str, float]], tasks: Sequence[Task], protocol: ProtocolName
) -> SelectionScores:
    """Return the value of each task by which the best weights are selected.

    Args:
        scores: {task: {metric: value}} of a validation.
        tasks: the tasks that are evaluated.
        protocol: name of the evaluation protocol.

    Returns:
        {task: value of its selection metric}.
    """
    return {task.name: scores[task.name][task.get_selection_metric(protocol)] for task in tasks}


def compute_mean_gain(
    new: SelectionScores, old: SelectionScores | None, tasks: Sequence[Task]
) -> float:
    """Return the mean relative gain over the tasks.

    This is the multi-task performance Delta_m relative to earlier scores, except that a difference
    is divided by the larger of both values. A metric near 0 at the start of training therefore does
    not outweigh the other tasks. A finite value is better than one that is not finite by 1.

    Args:
        new: scores of the current validation.
        old: scores of an earlier validation; None if there is none.
        tasks: the tasks that are compared.

    Returns:
        The gain, positive if `new` is better; infinity if `old` is None.
    """
    if old is None:
        return math.inf
    gains = [_compute_gain(new[task.name], old[task.name], task.higher_is_better) for task in tasks]
    return sum(gains) / len(gains)


def _compute_gain(new: float, old: float, higher_is_better: bool) -> float:
    if not (math.isfinite(new) and math.isfinite(old)):
        return float(math.isfinite(new)) - float(math.isfinite(old))
    scale = max(abs(new), abs(old))
    change = (new - old) / scale if scale else 0.0
    return change if higher_is_better else -change
