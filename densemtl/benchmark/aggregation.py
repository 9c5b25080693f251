"""What a report is made of: the finished runs of each group, their table and their differences."""

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
"""{key in a run's memory file: column}."""


@dataclass(frozen=True)
class GroupResults:
    """A group, and by seed the results and folders of those of its runs that are finished."""

    group: RunGroup
    results: dict[int, Results]
    folders: dict[int, Path]


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of a group against its rival's."""

    name: str
    reference: str
    metric: str
    difference: PairedDifference


def collect_results(plan: BenchmarkPlan) -> list[GroupResults]:
    """All groups, with no results where there are none yet."""
    outcomes = []
    for group in plan.groups:
        tried = {run.experiment.seed: load_finished_results(run) for run in group.runs}
        done = {seed: results for seed, results in tried.items() if results is not None}
        folders = {run.experiment.seed: run.folder for run in group.runs}
        outcomes.append(GroupResults(group, done, {seed: folders[seed] for seed in done}))
    return outcomes


def make_table_rows(groups: Sequence[GroupResults]) -> list[tables.Row]:
    """Single tasks first, then the groups, with what they cost."""
    singles: dict[str, dict[int, dict[str, Path]]] = defaultdict(dict)
    for outcome in groups:
        for seed, results in outcome.results.items():
            files = {task: Path(baseline.file) for task, baseline in results.baselines.items()}
            if files:
                singles[outcome.group.backbone][seed] = files
    rows = [_make_single_task_row(backbone, by_seed) for backbone, by_seed in singles.items()]
    return [*rows, *(_make_group_row(outcome) for outcome in groups if outcome.results)]


def _make_group_row(group_results: GroupResults) -> tables.Row:
    row = tables.group_by_seed(list(group_results.results.values()), costs=True)[0]
    peaks: dict[str, list[float]] = defaultdict(list)
    for folder in group_results.folders.values():
        for key, value in read_memory(folder).items():
            peaks[MEMORY_COLUMNS[key]].append(value)
    cells = {**row.cells, **{column: tuple(values) for column, values in peaks.items()}}
    return replace(row, name=group_results.group.name, cells=cells)


def _make_single_task_row(backbone: str, by_seed: dict[int, dict[str, Path]]) -> tables.Row:
    """Networks of one task each, taken together: costs are added up."""
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
    """Of every group that is not its own rival, over the seeds that both have finished."""
    by_name = {outcome.group.name: outcome for outcome in groups}
    for outcome in groups:
        group = outcome.group
        if group.reference != group.name:
            yield from _compare_with_reference(outcome, by_name[group.reference])


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
    """{(column, whether higher is better): number}, those left out that had nothing to score."""
    values = {
        (
            f"{task} {result.primary_metric} {tables.ARROWS[result.higher_is_better]}",
            result.higher_is_better,
        ): (result.metrics[result.primary_metric])
        for task, result in results.tasks.items()
    }
    values[tables.DELTA_M_COLUMN, True] = results.delta_m
    return {measure: value for measure, value in values.items() if value is not None}
