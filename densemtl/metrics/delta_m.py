"""Multi-task performance relative to single-task baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping

from densemtl.errors import ResultsError


def has_delta(value: float, reference: float) -> bool:
    """Return whether the relative improvement of a value is defined.

    Args:
        value: primary metric of the multi-task model.
        reference: primary metric of the single-task baseline.

    Returns:
        False if one of them is not finite or the baseline is 0.
    """
    return math.isfinite(value) and math.isfinite(reference) and reference != 0


def compute_task_deltas(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """Compute the relative improvement of each task over its single-task baseline.

    Source: Maninis et al., "Attentive single-tasking of multiple tasks", CVPR 2019, section 5.

    Args:
        multi: {task: primary metric} of the multi-task model.
        single: {task: primary metric} of the single-task baselines.
        higher_is_better: {task: whether a higher value of its metric is better}.

    Returns:
        {task: improvement in percent}; positive values are better for every metric.

    Raises:
        ResultsError: if the tasks differ, a value is not finite, or a baseline is 0.

    Example:
        >>> from densemtl.metrics.delta_m import compute_task_deltas
        >>> deltas = compute_task_deltas(
        ...     {"semseg": 44.0, "depth": 0.6},
        ...     {"semseg": 40.0, "depth": 0.5},
        ...     {"semseg": True, "depth": False},
        ... )
        >>> {task: round(delta, 2) for task, delta in deltas.items()}
        {'semseg': 10.0, 'depth': -20.0}
    """
    _check_comparable(multi, single, higher_is_better)
    deltas = {task: 100 * (multi[task] - single[task]) / single[task] for task in multi}
    return {task: delta if higher_is_better[task] else -delta for task, delta in deltas.items()}


def compute_delta_m(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Compute the multi-task performance Delta_m.

    Source: Maninis et al., "Attentive single-tasking of multiple tasks", CVPR 2019, section 5.

    Args:
        multi: {task: primary metric} of the multi-task model.
        single: {task: primary metric} of the single-task baselines.
        higher_is_better: {task: whether a higher value of its metric is better}.

    Returns:
        The mean of `compute_task_deltas` over tasks, in percent.

    Raises:
        ResultsError: see `compute_task_deltas`.

    Example:
        >>> from densemtl.metrics.delta_m import compute_delta_m
        >>> delta_m = compute_delta_m(
        ...     {"semseg": 44.0, "depth": 0.6},
        ...     {"semseg": 40.0, "depth": 0.5},
        ...     {"semseg": True, "depth": False},
        ... )
        >>> round(delta_m, 2)
        -5.0
    """
    deltas = compute_task_deltas(multi, single, higher_is_better)
    return sum(deltas.values()) / len(deltas)


def _check_comparable(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> None:
    if not multi:
        raise ResultsError("Delta_m needs the results of at least one task")
    for label, values in (("single-task result", single), ("direction", higher_is_better)):
        missing = [task for task in multi if task not in values]
        if missing:
            raise ResultsError(f"Delta_m needs a {label} for: {', '.join(missing)}")
    extra_tasks = [task for task in single if task not in multi]
    if extra_tasks:
        raise ResultsError(f"Delta_m: the multi-task run has no {', '.join(extra_tasks)}")
    for task, value in multi.items():
        if not has_delta(value, single[task]):
            raise ResultsError(f"Delta_m cannot compare {value} with {single[task]} for {task!r}")
