"""Comparison of results with single-task results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from densemtl.errors import ResultsError
from densemtl.metrics.delta_m import compute_delta_m, compute_task_deltas, has_delta
from densemtl.results.results import Baseline, ComparisonKey, Results, TaskResult, load_results


def add_baselines(results: Results, baseline_files: Mapping[str, Path]) -> Results:
    """Add Delta_m and the delta of each task relative to single-task results.

    Delta_m is defined by `densemtl.metrics.delta_m.compute_delta_m`. Tasks whose delta is undefined
    are left out of it.

    Args:
        results: results of a multi-task run.
        baseline_files: {task: results file or run folder of a single-task run}.

    Returns:
        A copy of the results with deltas, baselines and Delta_m.

    Raises:
        ResultsError: if a baseline is missing or unfinished, or has another protocol, dataset,
            split, backbone, primary metric, task or number of images.
    """
    loaded = load_baselines(results.get_comparison_key(), baseline_files)
    for task, single in loaded.items():
        _check_image_counts(results.tasks[task], single.tasks[task], baseline_files[task])
    baselines = {
        task: Baseline(
            file=str(baseline_files[task]),
            value=single.tasks[task].metrics[single.tasks[task].primary_metric],
            weights_hash=single.weights_hash,
        )
        for task, single in loaded.items()
    }
    return compare_with(results, baselines)


def compare_with(results: Results, baselines: Mapping[str, Baseline]) -> Results:
    """Add Delta_m and the delta of each task relative to single-task results that were loaded.

    Args:
        results: results of a multi-task run.
        baselines: {task: single-task result}; empty for no comparison.

    Returns:
        A copy of the results with deltas, baselines and Delta_m.
    """
    single_values = {
        task: math.nan if each.value is None else each.value for task, each in baselines.items()
    }
    multi = {
        task: result.value
        for task, result in results.tasks.items()
        if task in single_values and has_delta(result.value, single_values[task])
    }
    compared = {task: single_values[task] for task in multi}
    directions = {task: result.higher_is_better for task, result in results.tasks.items()}
    deltas = compute_task_deltas(multi, compared, directions) if multi else {}
    tasks = {
        task: result.model_copy(update={"delta": deltas.get(task)})
        for task, result in results.tasks.items()
    }
    total = compute_delta_m(multi, compared, directions) if multi else None
    update = {"tasks": tasks, "baselines": dict(baselines), "delta_m": total}
    return results.model_copy(update=update)


def load_baselines(
    comparison_key: ComparisonKey, baseline_files: Mapping[str, Path]
) -> dict[str, Results]:
    """Load single-task results, and check that a run can be compared with them.

    Args:
        comparison_key: the properties that the baselines must share with the run.
        baseline_files: {task: results file or run folder of a single-task run}.

    Returns:
        {task: results of the single-task run}.

    Raises:
        ResultsError: if a baseline is missing or unfinished, or has another protocol, dataset,
            split, backbone, primary metric or task.
    """
    missing = [task for task in comparison_key.primary_metrics if task not in baseline_files]
    if missing:
        raise ResultsError(f"baselines: no single-task result for {', '.join(missing)}")
    surplus = [task for task in baseline_files if task not in comparison_key.primary_metrics]
    if surplus:
        raise ResultsError(f"baselines: {', '.join(surplus)}: no such task in this run")
    loaded = {task: load_results(file) for task, file in baseline_files.items()}
    for task, single in loaded.items():
        _check_comparable(comparison_key, task, single, baseline_files[task])
    return loaded


def _check_comparable(
    comparison_key: ComparisonKey, task: str, baseline: Results, file: Path
) -> None:
    """Raise an error if the result of a task cannot be compared with a baseline."""
    if list(baseline.tasks) != [task]:
        actual = ", ".join(baseline.tasks)
        raise ResultsError(f"{file}: not a single-task run of {task!r} but a run of {actual}")
    if not baseline.complete and comparison_key.complete:
        raise ResultsError(f"{file}: the run was stopped early (finish it first)")
    baseline_key = baseline.get_comparison_key()
    pairs = {
        "protocol": (baseline_key.protocol, comparison_key.protocol),
        "dataset": (baseline_key.dataset, comparison_key.dataset),
        "split": (baseline_key.split_fingerprint, comparison_key.split_fingerprint),
        "backbone": (baseline_key.backbone, comparison_key.backbone),
        "metric": (baseline_key.primary_metrics[task], comparison_key.primary_metrics[task]),
    }
    for name, (actual, expected) in pairs.items():
        if actual != expected:
            raise ResultsError(
                f"{file}: cannot be the baseline of {task!r}: its {name} is {actual}, but that of "
                f"this run is {expected} (Delta_m requires the same {name})"
            )


def _check_image_counts(task_result: TaskResult, baseline: TaskResult, file: Path) -> None:
    """Check that a task was scored on as many images as its baseline.

    A task may be scored on a part of the split only, such as the edges of PASCAL-Context.
    """
    counts = [result.metrics.get("images") for result in (baseline, task_result)]
    if None not in counts and counts[0] != counts[1]:
        actual, expected = (f"{count:g} images" for count in counts)
        raise ResultsError(
            f"{file}: cannot be a baseline: it was scored on {actual}, but this run on {expected} "
            "(Delta_m requires the same images)"
        )
