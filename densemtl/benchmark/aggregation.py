"""Content of a report: finished runs of each group, rows of the table, and differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densemtl.benchmark.grid import BenchmarkPlan, RunGroup
from densemtl.benchmark.run_status import load_finished_results, read_memory
from densemtl.benchmark.statistics import PairedDifference, judge_differences
from densemtl.results import tables
from densemtl.results.results import Results, load_results

MEMORY_COLUMNS = {"peak_rss_mib": "peak RSS MiB", "peak_cuda_mib": "peak CUDA MiB"}
"""{key in the memory file of a run: column of the table}."""


@dataclass(frozen=True)
class GroupResults:
    """Results of the finished runs of a group.

    Attributes:
        group: the group of runs.
        results: {seed: results} of finished runs.
        folders: {seed: run folder} of finished runs.
    """

    group: RunGroup
    results: dict[int, Results]
    folders: dict[int, Path]


@dataclass(frozen=True)
class ComparisonRow:
    """Difference of one metric between a group and its reference.

    Attributes:
        name: name of the group.
        reference: name of the group that it is compared with.
        metric: column of the metric, with an arrow for its direction.
        difference: statistics of the paired differences over seeds.
    """

    name: str
    reference: str
    metric: str
    difference: PairedDifference


def collect_results(plan: BenchmarkPlan) -> list[GroupResults]:
    """Load the results of all finished runs.

    Args:
        plan: all runs of the benchmark.

    Returns:
        One item per group, which may have no results yet.
    """
    groups = []
    for group in plan.groups:
        by_seed = {run.experiment.seed: load_finished_results(run) for run in group.runs}
        finished = {seed: results for seed, results in by_seed.items() if results is not None}
        folders = {run.experiment.seed: run.folder for run in group.runs}
        groups.append(GroupResults(group, finished, {seed: folders[seed] for seed in finished}))
    return groups


def make_table_rows(groups: Sequence[GroupResults]) -> list[tables.Row]:
    """Make the rows of the results table, with costs and peak memory.

    Args:
        groups: result of `collect_results`.

    Returns:
        One row of single-task baselines per backbone, then one row per group with results.
    """
    baselines: dict[str, dict[int, dict[str, Path]]] = defaultdict(dict)
    for group_results in groups:
        for seed, results in group_results.results.items():
            files = {task: Path(baseline.file) for task, baseline in results.baselines.items()}
            if files:
                baselines[group_results.group.backbone][seed] = files
    rows = [_make_single_task_row(backbone, by_seed) for backbone, by_seed in baselines.items()]
    return [*rows, *(_make_group_row(each) for each in groups if each.results)]


def _make_group_row(group_results: GroupResults) -> tables.Row:
    row = tables.group_by_seed(list(group_results.results.values()), costs=True)[0]
    peaks: dict[str, list[float]] = defaultdict(list)
    for folder in group_results.folders.values():
        for key, value in read_memory(folder).items():
            peaks[MEMORY_COLUMNS[key]].append(value)
    cells = {**row.cells, **{column: tuple(values) for column, values in peaks.items()}}
    return replace(row, name=group_results.group.name, cells=cells)


def _make_single_task_row(backbone: str, by_seed: dict[int, dict[str, Path]]) -> tables.Row:
    """Return the row of all single-task baselines of a backbone; their costs are summed."""
    cells: dict[str, list[float]] = defaultdict(list)
    for files in by_seed.values():
        sums: dict[str, float] = defaultdict(float)
        for file in files.values():
            for column, (value,) in tables.group_by_seed([load_results(file)], costs=True)[
                0
            ].cells.items():
                sums[column] += value
        for column, value in sums.items():
            cells[column].append(value)
    name = "-".join(part for part in ("single tasks", backbone) if part)
    return tables.Row(name, len(by_seed), {key: tuple(values) for key, values in cells.items()})


def compare_groups(groups: Sequence[GroupResults]) -> Iterator[ComparisonRow]:
    """Compare every group with its reference, over the seeds that are finished in both.

    Args:
        groups: result of `collect_results`.

    Yields:
        One row per group and metric; groups that are their own reference, or whose reference is
        not in `groups`, are omitted.
    """
    by_name = {group_results.group.name: group_results for group_results in groups}
    for group_results in groups:
        group = group_results.group
        if group.reference != group.name and group.reference in by_name:
            yield from _compare_with_reference(group_results, by_name[group.reference])


def _compare_with_reference(
    group_results: GroupResults, reference_results: GroupResults
) -> Iterator[ComparisonRow]:
    pairs: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for seed, results in group_results.results.items():
        others = (
            _get_primary_metrics(reference_results.results[seed])
            if seed in reference_results.results
            else {}
        )
        for measure, value in _get_primary_metrics(results).items():
            if measure in others:
                pairs[measure].append(value - others[measure])
    for (metric, higher_is_better), values in pairs.items():
        difference = judge_differences(values, higher_is_better)
        yield ComparisonRow(
            group_results.group.name, reference_results.group.name, metric, difference
        )


def _get_primary_metrics(results: Results) -> dict[tuple[str, bool], float]:
    """Return {(column, whether higher is better): value}; metrics without a value are omitted."""
    values = {
        (
            f"{task} {result.primary_metric} {tables.ARROWS[result.higher_is_better]}",
            result.higher_is_better,
        ): (result.metrics[result.primary_metric])
        for task, result in results.tasks.items()
    }
    values[tables.DELTA_M_COLUMN, True] = results.full_delta_m
    return {measure: value for measure, value in values.items() if value is not None}
