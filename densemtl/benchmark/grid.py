"""Grid of training runs defined by a benchmark configuration, and their single-task baselines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densemtl.benchmark.suite_config import (
    BenchmarkConfig,
    Entries,
    make_entry_names,
    sanitize_folder_name,
)
from densemtl.config import yaml_loader
from densemtl.config.experiment import ExperimentConfig, validate_experiment
from densemtl.config.shipped_configs import find_config
from densemtl.errors import ConfigError
from densemtl.results.results import BASELINES


@dataclass(frozen=True)
class BenchmarkRun:
    """One training run.

    Attributes:
        title: title on the terminal and in the report.
        experiment: configuration of the run.
        folder: run folder.
        required_folders: folders of the baselines that must be finished first.
    """

    title: str
    experiment: ExperimentConfig
    folder: Path
    required_folders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed.

    Attributes:
        name: name of the decoder, followed by those of the backbone and the balancing method if
            the benchmark has several of them.
        backbone: name of the backbone if the benchmark has several of them, else empty.
        reference: name of the group that this group is compared with; the own name for the
            reference itself.
        runs: one run per seed.
    """

    name: str
    backbone: str
    reference: str
    runs: tuple[BenchmarkRun, ...]


@dataclass(frozen=True)
class BenchmarkPlan:
    """All runs of a benchmark.

    Attributes:
        groups: groups of runs.
        baselines: single-task runs, which are trained first.
    """

    groups: tuple[RunGroup, ...]
    baselines: tuple[BenchmarkRun, ...]

    @property
    def runs(self) -> list[BenchmarkRun]:
        """The runs of all groups."""
        return [run for group in self.groups for run in group.runs]


def make_plan(config: BenchmarkConfig, config_file: Path, output: Path) -> BenchmarkPlan:
    """Make all runs of a benchmark.

    Args:
        config: configuration of the benchmark.
        config_file: file that it was read from.
        output: folder that will contain all runs.

    Returns:
        The groups of runs and their baselines. Equal baselines of several runs are trained once.

    Raises:
        ConfigError: if the base, an override or a component is invalid; one line per error.
    """
    errors: dict[str, None] = {}
    groups: list[RunGroup] = []
    baselines: dict[Path, BenchmarkRun] = {}
    for name, backbone, reference, sections in _iter_combinations(config):
        runs = []
        for seed in config.seeds:
            try:
                experiment = _build_experiment(config, config_file, {**sections, "seed": seed})
            except ConfigError as error:
                errors |= dict.fromkeys(str(error).splitlines())
                continue
            task_baselines = _make_baseline_runs(experiment, output)
            baselines |= {baseline.folder: baseline for baseline in task_baselines.values()}
            runs.append(_make_run(name, experiment, output, task_baselines))
        groups.append(RunGroup(name, backbone, reference, tuple(runs)))
    if errors:
        raise ConfigError("\n".join(errors))
    return BenchmarkPlan(tuple(groups), tuple(baselines.values()))


def _iter_combinations(config: BenchmarkConfig) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yield (name, backbone, name of the reference, {section: entry}) of every group."""
    reference = config.reference or make_entry_names(getattr(config, config.comparison_axis))[0]
    by_method = config.comparison_axis == "balancing"
    for backbone, backbone_section in _list_axis("backbone", config.backbones):
        for balancing, balancing_section in _list_axis("balancing", config.balancing):
            for decoder, entry in zip(
                make_entry_names(config.decoders), config.decoders, strict=True
            ):
                parts = (decoder, reference) if by_method else (reference, balancing)
                name = _join_name(decoder, backbone, balancing)
                reference_name = _join_name(parts[0], backbone, parts[1])
                sections = {
                    "decoder": entry.model_dump(),
                    **backbone_section,
                    **balancing_section,
                }
                yield name, backbone, reference_name, sections


def _join_name(*parts: str) -> str:
    return "-".join(part for part in parts if part)


def _list_axis(section: str, entries: Entries) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, {section: entry}) of each entry; the name of a single entry is empty."""
    if not entries:
        return [("", {})]
    names = make_entry_names(entries) if len(entries) > 1 else [""]
    dumps = [{section: entry.model_dump()} for entry in entries]
    return list(zip(names, dumps, strict=True))


def _build_experiment(
    config: BenchmarkConfig, config_file: Path, selection: dict[str, Any]
) -> ExperimentConfig:
    """Return the base, changed by the overrides and then by the selected sections."""
    overrides = [f"{section}={json.dumps(value)}" for section, value in selection.items()]
    base = find_config(config.base, config_file.parent)
    try:
        document = yaml_loader.load_config(base, [*config.overrides, *overrides])
    except ConfigError as error:
        raise ConfigError(
            str(error).replace(yaml_loader.COMMAND_LINE, f"{config_file}: overrides")
        ) from None
    sources = {
        path: str(config_file) if source == yaml_loader.COMMAND_LINE else source
        for path, source in document.sources.items()
    }
    return validate_experiment(replace(document, sources=sources))


def _make_baseline_runs(experiment: ExperimentConfig, output: Path) -> dict[str, BenchmarkRun]:
    """Return {task: single-task run}; equal runs of several experiments have the same folder."""
    if experiment.baselines != "auto":
        return {}
    runs = {}
    for task in experiment.list_task_names():
        baseline = experiment.to_single_task(task)
        backbone, seed = baseline.backbone.name, baseline.seed
        parts = (task, backbone, f"seed{seed}", baseline.compute_config_hash())
        folder = output / BASELINES / sanitize_folder_name("-".join(parts))
        title = f"single task {task}, {backbone}, seed {seed}"
        runs[task] = BenchmarkRun(title, baseline, folder)
    return runs


def _make_run(
    name: str, experiment: ExperimentConfig, output: Path, baseline_runs: dict[str, BenchmarkRun]
) -> BenchmarkRun:
    folders = {task: baseline.folder for task, baseline in baseline_runs.items()}
    if folders:
        experiment = experiment.model_copy(update={"baselines": folders})
    folder = output / name / f"seed{experiment.seed}"
    return BenchmarkRun(
        f"{name}, seed {experiment.seed}", experiment, folder, tuple(folders.values())
    )
