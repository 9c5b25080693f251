"""The grid of runs that a suite stands for, and the single-task references before them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densemtl.config import yaml_loader
from densemtl.benchmark.suite_config import Entries, Suite, fit_for_folders, labels
from densemtl.config.experiment import Experiment, check
from densemtl.errors import ConfigError
from densemtl.results.results import BASELINES


@dataclass(frozen=True)
class Run:
    """One training, in a folder of its own.

    Attributes:
        title: on the terminal.
        experiment: what is trained.
        folder: where.
        needs: folders of the runs that must be finished before.
    """

    title: str
    experiment: Experiment
    folder: Path
    needs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone.

    Attributes:
        name: the architecture's, and the backbone's and balancing's where there are several.
        backbone: where there are several, else empty.
        rival: name of the group that it is held against; its own if that is the reference.
        runs: one a seed.
    """

    name: str
    backbone: str
    rival: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Plan:
    """All runs of a suite: the groups', and before them the single-task references'."""

    groups: tuple[Group, ...]
    references: tuple[Run, ...]

    @property
    def cells(self) -> list[Run]:
        """The runs of all groups."""
        return [run for group in self.groups for run in group.runs]


def plan(suite: Suite, file: Path, output: Path) -> Plan:
    """The grid of a suite.

    Args:
        suite: it.
        file: where it was read from.
        output: folder of all runs.

    Raises:
        ConfigError: one line for each thing that is wrong in the base, an override, a component.
    """
    errors: dict[str, None] = {}
    groups: list[Group] = []
    references: dict[Path, Run] = {}
    for name, backbone, rival, chosen in _combinations(suite):
        runs = []
        for seed in suite.seeds:
            try:
                experiment = _experiment(suite, file, {**chosen, "seed": seed})
            except ConfigError as error:
                errors |= dict.fromkeys(str(error).splitlines())
                continue
            singles = _references(experiment, output)
            references |= {single.folder: single for single in singles.values()}
            runs.append(_cell(name, experiment, output, singles))
        groups.append(Group(name, backbone, rival, tuple(runs)))
    if errors:
        raise ConfigError("\n".join(errors))
    return Plan(tuple(groups), tuple(references.values()))


def _combinations(suite: Suite) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(name, backbone, rival's name, {section: entry}) of every group."""
    reference = suite.reference or labels(getattr(suite, suite.compared))[0]
    for backbone, net in _axis("backbone", suite.backbones):
        for balancing, weighting in _axis("balancing", suite.balancing):
            for decoder, entry in zip(labels(suite.decoders), suite.decoders, strict=True):
                by_rule = suite.compared == "balancing"
                other = (decoder, reference) if by_rule else (reference, balancing)
                name = _joined(decoder, backbone, balancing)
                rival = _joined(other[0], backbone, other[1])
                yield name, backbone, rival, {"decoder": entry.model_dump(), **net, **weighting}


def _joined(*parts: str) -> str:
    return "-".join(part for part in parts if part)


def _axis(section: str, entries: Entries) -> list[tuple[str, dict[str, Any]]]:
    """(label, {section: entry}) of each entry; the label is empty where there is no choice."""
    if not entries:
        return [("", {})]
    names = labels(entries) if len(entries) > 1 else [""]
    dumps = [{section: entry.model_dump()} for entry in entries]
    return list(zip(names, dumps, strict=True))


def _experiment(suite: Suite, file: Path, chosen: dict[str, Any]) -> Experiment:
    """The base, changed by the suite's overrides and then by what is chosen of the grid."""
    overrides = [f"{section}={json.dumps(value)}" for section, value in chosen.items()]
    base, asked = file.parent / suite.base, [*suite.overrides, *overrides]
    try:
        document = yaml_loader.load(base, asked)
    except ConfigError as error:
        raise ConfigError(
            str(error).replace(yaml_loader.COMMAND_LINE, f"{file}: overrides")
        ) from None
    origins = {
        path: str(file) if origin == yaml_loader.COMMAND_LINE else origin
        for path, origin in document.origins.items()
    }
    return check(replace(document, origins=origins))


def _references(experiment: Experiment, output: Path) -> dict[str, Run]:
    """{task: run of its own}; equal ones of several experiments have the same folder."""
    if experiment.baselines != "auto":
        return {}
    runs = {}
    for task in experiment.task_names():
        single = experiment.single_task(task)
        parts = (task, single.backbone.name, f"seed{single.seed}", single.fingerprint())
        title = f"single task {task}, {single.backbone.name}, seed {single.seed}"
        runs[task] = Run(title, single, output / BASELINES / fit_for_folders("-".join(parts)))
    return runs


def _cell(name: str, experiment: Experiment, output: Path, singles: dict[str, Run]) -> Run:
    folders = {task: single.folder for task, single in singles.items()}
    if folders:
        experiment = experiment.model_copy(update={"baselines": folders})
    folder = output / name / f"seed{experiment.seed}"
    return Run(f"{name}, seed {experiment.seed}", experiment, folder, tuple(folders.values()))
