"""The grid of runs that a suite stands for, and the single-task references before them."""

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
from densemtl.errors import ConfigError
from densemtl.results.results import BASELINES


@dataclass(frozen=True)
class BenchmarkRun:
    """One training, in a folder of its own.

    Attributes:
        title: on the terminal.
        experiment: what is trained.
        folder: where.
        required_folders: folders of the runs that must be finished before.
    """

    title: str
    experiment: ExperimentConfig
    folder: Path
    required_folders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ by their seed alone.

    Attributes:
        name: the architecture's, and the backbone's and balancing's where there are several.
        backbone: where there are several, else empty.
        reference: name of the group that it is held against; its own if that is the reference.
        runs: one a seed.
    """

    name: str
    backbone: str
    reference: str
    runs: tuple[BenchmarkRun, ...]


@dataclass(frozen=True)
class BenchmarkPlan:
    """All runs of a suite: the groups', and before them the single-task references'."""

    groups: tuple[RunGroup, ...]
    baselines: tuple[BenchmarkRun, ...]

    @property
    def runs(self) -> list[BenchmarkRun]:
        """The runs of all groups."""
        return [run for group in self.groups for run in group.runs]


def make_plan(config: BenchmarkConfig, config_file: Path, output: Path) -> BenchmarkPlan:
    """The grid of a suite.

    Args:
        config: it.
        config_file: where it was read from.
        output: folder of all runs.

    Raises:
        ConfigError: one line for each thing that is wrong in the base, an override, a component.
    """
    errors: dict[str, None] = {}
    groups: list[RunGroup] = []
    references: dict[Path, BenchmarkRun] = {}
    for name, backbone, rival, chosen in _iter_combinations(config):
        runs = []
        for seed in config.seeds:
            try:
                experiment = _build_experiment(config, config_file, {**chosen, "seed": seed})
            except ConfigError as error:
                errors |= dict.fromkeys(str(error).splitlines())
                continue
            singles = _make_baseline_runs(experiment, output)
            references |= {single.folder: single for single in singles.values()}
            runs.append(_make_run(name, experiment, output, singles))
        groups.append(RunGroup(name, backbone, rival, tuple(runs)))
    if errors:
        raise ConfigError("\n".join(errors))
    return BenchmarkPlan(tuple(groups), tuple(references.values()))


def _iter_combinations(config: BenchmarkConfig) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(name, backbone, rival's name, {section: entry}) of every group."""
    reference = config.reference or make_entry_names(getattr(config, config.comparison_axis))[0]
    for backbone, net in _list_axis("backbone", config.backbones):
        for balancing, weighting in _list_axis("balancing", config.balancing):
            for decoder, entry in zip(
                make_entry_names(config.decoders), config.decoders, strict=True
            ):
                by_rule = config.comparison_axis == "balancing"
                rival_parts = (decoder, reference) if by_rule else (reference, balancing)
                name = _join_name(decoder, backbone, balancing)
                rival = _join_name(rival_parts[0], backbone, rival_parts[1])
                yield name, backbone, rival, {"decoder": entry.model_dump(), **net, **weighting}


def _join_name(*parts: str) -> str:
    return "-".join(part for part in parts if part)


def _list_axis(section: str, entries: Entries) -> list[tuple[str, dict[str, Any]]]:
    """(label, {section: entry}) of each entry; the label is empty where there is no choice."""
    if not entries:
        return [("", {})]
    names = make_entry_names(entries) if len(entries) > 1 else [""]
    dumps = [{section: entry.model_dump()} for entry in entries]
    return list(zip(names, dumps, strict=True))


def _build_experiment(
    config: BenchmarkConfig, config_file: Path, selection: dict[str, Any]
) -> ExperimentConfig:
    """The base, changed by the suite's overrides and then by what is chosen of the grid."""
    overrides = [f"{section}={json.dumps(value)}" for section, value in selection.items()]
    base, asked = config_file.parent / config.base, [*config.overrides, *overrides]
    try:
        document = yaml_loader.load_config(base, asked)
    except ConfigError as error:
        raise ConfigError(
            str(error).replace(yaml_loader.COMMAND_LINE, f"{config_file}: overrides")
        ) from None
    origins = {
        path: str(config_file) if origin == yaml_loader.COMMAND_LINE else origin
        for path, origin in document.sources.items()
    }
    return validate_experiment(replace(document, sources=origins))


def _make_baseline_runs(experiment: ExperimentConfig, output: Path) -> dict[str, BenchmarkRun]:
    """{task: run of its own}; equal ones of several experiments have the same folder."""
    if experiment.baselines != "auto":
        return {}
    runs = {}
    for task in experiment.list_task_names():
        single = experiment.to_single_task(task)
        parts = (task, single.backbone.name, f"seed{single.seed}", single.compute_config_hash())
        title = f"single task {task}, {single.backbone.name}, seed {single.seed}"
        runs[task] = BenchmarkRun(
            title, single, output / BASELINES / sanitize_folder_name("-".join(parts))
        )
    return runs


def _make_run(
    name: str, experiment: ExperimentConfig, output: Path, baseline_runs: dict[str, BenchmarkRun]
) -> BenchmarkRun:
    folders = {task: single.folder for task, single in baseline_runs.items()}
    if folders:
        experiment = experiment.model_copy(update={"baselines": folders})
    folder = output / name / f"seed{experiment.seed}"
    return BenchmarkRun(
        f"{name}, seed {experiment.seed}", experiment, folder, tuple(folders.values())
    )
