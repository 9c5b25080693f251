"""Multi-task performance against single-task references."""

from __future__ import annotations

import math
from collections.abc import Mapping

from densemtl.errors import ResultsError


def compute_task_deltas(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """How much better, in percent, each task's primary metric is than its single-task reference.

    Maninis et al. 2019, "Attentive single-tasking of multiple tasks", section 5: positive is
    better, whichever way the metric points.

    Raises:
        ResultsError: the tasks differ, or a value cannot be compared.
    """
    _check_comparable(multi, single, higher_is_better)
    deltas = {task: 100 * (multi[task] - single[task]) / single[task] for task in multi}
    return {task: delta if higher_is_better[task] else -delta for task, delta in deltas.items()}


def compute_delta_m(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Delta_m in percent: the mean of `task_deltas`, which says what it raises."""
    deltas = compute_task_deltas(multi, single, higher_is_better)
    return sum(deltas.values()) / len(deltas)


def _check_comparable(
    multi: Mapping[str, float], single: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> None:
    if not multi:
        raise ResultsError("Delta_m needs the results of at least one task.")
    for label, values in (("single-task result", single), ("direction", higher_is_better)):
        missing = [task for task in multi if task not in values]
        if missing:
            raise ResultsError(f"Delta_m needs a {label} for: {', '.join(missing)}.")
    surplus = [task for task in single if task not in multi]
    if surplus:
        raise ResultsError(f"Delta_m: the multi-task run lacks {', '.join(surplus)}.")
    for task, value in multi.items():
        reference = single[task]
        if not (math.isfinite(value) and math.isfinite(reference)) or reference == 0:
            raise ResultsError(f"Delta_m cannot compare {value} with {reference} for '{task}'.")
