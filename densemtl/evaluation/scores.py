"""Scores of several tasks, and functions that combine them.

This module does not import torchmetrics, so that it is quick to import.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from densemtl.tasks.added_metrics import IMAGES

if TYPE_CHECKING:
    from densemtl.metrics.base import TaskMetric

Scores = dict[str, dict[str, float]]
"""{task: {metric: value}}, with the number of labeled images as the metric "images", and, for tasks
with one id per pixel, the number of ids that occur in the labels as "occurring_ids". If several
sets have labels of a task, a value is the mean of the values "SET/METRIC" of the sets."""

TaskSets = Mapping[str, Sequence[str]]
"""{task: sets that have labels of it}; empty if all images are from one set. An id then begins with
the name of the set."""


def join_scores(metrics: Iterable[TaskMetric]) -> dict[str, float]:
    """Compute the values of several metrics of one task.

    Args:
        metrics: metrics whose values have different names.

    Returns:
        {name: value} of all metrics.
    """
    return {name: value for metric in metrics for name, value in metric.compute_dict().items()}


def average_sets(values_of_sets: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average the metrics of one task over several sets.

    A set counts as much as any other, however many images it has. A metric without value on one of
    the sets has no value.

    Args:
        values_of_sets: {set: {metric: value}}.

    Returns:
        The mean of each metric (of the number of images, the sum), and its value on each set as
        "SET/METRIC".

    Example:
        >>> average_sets({"a": {"mIoU": 30.0}, "b": {"mIoU": 50.0}})
        {'mIoU': 40.0, 'a/mIoU': 30.0, 'b/mIoU': 50.0}
    """
    first = next(iter(values_of_sets.values()))
    sums = {name: sum(values[name] for values in values_of_sets.values()) for name in first}
    means = {
        name: total if name == IMAGES else total / len(values_of_sets)
        for name, total in sums.items()
    }
    named = {
        f"{set_name}/{name}": value
        for set_name, values in values_of_sets.items()
        for name, value in values.items()
    }
    return {**means, **named}
