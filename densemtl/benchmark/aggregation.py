"""What a report is made of: the finished runs of each group, their table and their differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densemtl.results import tables
from densemtl.benchmark.grid import Group, Plan
from densemtl.benchmark.run_status import finished, read_memory
from densemtl.benchmark.statistics import Difference, compare
from densemtl.results.results import Results, load_results

MEMORY = {"peak_rss_mib": "peak RSS MiB", "peak_cuda_mib": "peak CUDA MiB"}
"""{key in a run's memory file: column}."""


@dataclass(frozen=True)
class Outcome:
    """A group, and by seed the results and folders of those of its runs that are finished."""

    group: Group
    results: dict[int, Results]
    folders: dict[int, Path]


@dataclass(frozen=True)
class Line:
    """One metric of a group against its rival's."""

    name: str
    rival: str
    metric: str
    difference: Difference


def collect(plan: Plan) -> list[Outcome]:
    """All groups, with no results where there are none yet."""
    outcomes = []
    for group in plan.groups:
        tried = {run.experiment.seed: finished(run) for run in group.runs}
        done = {seed: results for seed, results in tried.items() if results is not None}
        folders = {run.experiment.seed: run.folder for run in group.runs}
        outcomes.append(Outcome(group, done, {seed: folders[seed] for seed in done}))
    return outcomes


def table_rows(outcomes: Sequence[Outcome]) -> list[tables.Row]:
    """Single tasks first, then the groups, with what they cost."""
    singles: dict[str, dict[int, dict[str, Path]]] = defaultdict(dict)
    for outcome in outcomes:
        for seed, results in outcome.results.items():
            files = {task: Path(each.file) for task, each in results.baselines.items()}
            if files:
                singles[outcome.group.backbone][seed] = files
    rows = [_singles_row(backbone, by_seed) for backbone, by_seed in singles.items()]
    return [*rows, *(_row(outcome) for outcome in outcomes if outcome.results)]


def _row(outcome: Outcome) -> tables.Row:
    row = tables.group_by_seed(list(outcome.results.values()), costs=True)[0]
    peaks: dict[str, list[float]] = defaultdict(list)
    for folder in outcome.folders.values():
        for key, value in read_memory(folder).items():
            peaks[MEMORY[key]].append(value)
    cells = {**row.cells, **{column: tuple(values) for column, values in peaks.items()}}
    return replace(row, name=outcome.group.name, cells=cells)


def _singles_row(backbone: str, by_seed: dict[int, dict[str, Path]]) -> tables.Row:
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


def differences(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    """Of every group that is not its own rival, over the seeds that both have finished."""
    by_name = {outcome.group.name: outcome for outcome in outcomes}
    for outcome in outcomes:
        group = outcome.group
        if group.rival != group.name:
            yield from _against(outcome, by_name[group.rival])


def _against(ours: Outcome, theirs: Outcome) -> Iterator[Line]:
    pairs: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for seed, results in ours.results.items():
        others = _measures(theirs.results[seed]) if seed in theirs.results else {}
        for measure, value in _measures(results).items():
            if measure in others:
                pairs[measure].append(value - others[measure])
    for (metric, higher_is_better), values in pairs.items():
        difference = compare(values, higher_is_better)
        yield Line(ours.group.name, theirs.group.name, metric, difference)


def _measures(results: Results) -> dict[tuple[str, bool], float]:
    """{(column, whether higher is better): number}, those left out that had nothing to score."""
    found = {
        (f"{task} {each.primary} {tables.ARROWS[each.higher_is_better]}", each.higher_is_better): (
            each.metrics[each.primary]
        )
        for task, each in results.tasks.items()
    }
    found[tables.DELTA_M, True] = results.delta_m
    return {measure: value for measure, value in found.items() if value is not None}
