"""Evaluation of some of the tasks that a model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from densemtl.config.components import ComponentConfig, select_available
from densemtl.config.experiment import ExperimentConfig, validate_experiment
from densemtl.config.saved_settings import restrict_saved
from densemtl.config.yaml_loader import apply_overrides
from densemtl.errors import ConfigError, UserError, suggest
from densemtl.factory import get_task_defaults
from densemtl.tasks.base import Task

DATA_SECTIONS = ("data", "tasks")
"""Sections of the configuration whose overrides do not change the model of a subset of tasks."""

WITHOUT_WEIGHTS = "balancing={name: equal}"
"""Override that removes the weights of the losses, which may name other tasks."""

LoadFn = Callable[[Sequence[str]], ExperimentConfig]
"""Function that loads a saved experiment with overrides."""


@dataclass(frozen=True)
class LoadedExperiment:
    """Experiment of a trained model, and what is evaluated.

    Attributes:
        model: defines the model.
        evaluated: defines data, tasks and protocol; the same object if all tasks are evaluated.
        unlabeled: names of the tasks that are left out because the dataset has no labels of them.
        warnings: lines about classes whose names differ from those of the training.
    """

    model: ExperimentConfig
    evaluated: ExperimentConfig
    unlabeled: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load_subset(
    load: LoadFn, saved_tasks: Sequence[str], overrides: Sequence[str], source: Path
) -> LoadedExperiment:
    """Load an experiment whose overrides may list fewer tasks, or data that lacks some of them.

    Args:
        load: function that loads the saved experiment with overrides.
        saved_tasks: names of the tasks that the model predicts.
        overrides: changes of values, `key.key=value`.
        source: file of the saved experiment, for error messages.

    Returns:
        The experiment; the model has all tasks.

    Raises:
        ConfigError: if the configuration is wrong, or a task is not predicted by the model.
    """
    try:
        experiment = load(overrides)
        if sorted(experiment.list_task_names()) == sorted(saved_tasks):
            return LoadedExperiment(experiment, experiment)
    except ConfigError:  # possibly only because data or weights of losses name other tasks
        pass
    of_data = [text for text in overrides if _get_section(text) in DATA_SECTIONS]
    model = load([text for text in overrides if text not in of_data])
    subset = _restrict(model, of_data, source)
    if subset is None:
        experiment = load([*overrides, WITHOUT_WEIGHTS])  # raises the error of data or tasks
        raise ConfigError(f"{source}: cannot evaluate {', '.join(experiment.list_task_names())}")
    return subset


def check_channels(tasks: Sequence[Task], model_tasks: Sequence[Task]) -> None:
    """Check that the data has the classes and channels that the model predicts.

    Args:
        tasks: the evaluated tasks.
        model_tasks: all tasks of the model.

    Raises:
        ConfigError: if they differ.
    """
    predicted = {task.name: task.channels for task in model_tasks}
    for task in tasks:
        if task.channels != predicted[task.name]:
            raise ConfigError(
                f"tasks: {task.name} has {task.channels} classes or channels in this data, but the"
                f" model predicts {predicted[task.name]}; evaluate other tasks: tasks=[NAME, ..]"
            )


def find_class_differences(saved: ExperimentConfig, evaluated: ExperimentConfig) -> list[str]:
    """Find tasks whose classes have other names in the data than in the training.

    Args:
        saved: the experiment that was trained.
        evaluated: the experiment whose data is evaluated.

    Returns:
        One line per task.
    """
    if saved.data == evaluated.data:
        return []
    data = restrict_saved({"data": saved.data.model_dump()})["data"]  # reads no URL of the file
    safe = saved.model_copy(update={"data": ComponentConfig(**data)})
    names = _get_class_names(safe), _get_class_names(evaluated)
    lines = []
    for task in names[0].keys() & names[1].keys() & {*evaluated.list_task_names()}:
        pairs = [
            pair
            for pair in zip(*(each[task] for each in names), strict=False)
            if pair[0] != pair[1]
        ]
        if pairs:
            trained, stored = pairs[0]
            lines.append(
                f"{task}: {len(pairs)} classes have other names in this data, such as {stored!r}"
                f" instead of {trained!r}; metrics compare them by their numbers"
            )
    return sorted(lines)


def _get_class_names(experiment: ExperimentConfig) -> dict[str, list[str]]:
    try:
        defaults = get_task_defaults(experiment.data)
    except (UserError, ValidationError):  # the dataset that was trained on is gone
        return {}
    options = {
        task.name: {**defaults.get(task.name, {}), **task.options} for task in experiment.tasks
    }
    return {name: each["class_names"] for name, each in options.items() if "class_names" in each}


def _get_section(override: str) -> str:
    return override.partition("=")[0].partition(".")[0].strip()


def _restrict(
    model: ExperimentConfig, overrides: Sequence[str], source: Path
) -> LoadedExperiment | None:
    """Return the experiment of the tasks that overrides and data leave; None without such tasks."""
    merged = apply_overrides(model.model_dump(mode="json"), overrides, str(source))
    saved = {entry.name: entry.model_dump(mode="json") for entry in model.tasks}
    entries = _find_entries(merged.values.get("tasks"), saved)
    offered = _find_offered_tasks(merged.values.get("data"))
    if entries is None or offered is None:
        return None
    if unknown := [name for name in entries if name not in saved]:
        raise ConfigError(
            f"tasks: the model does not predict {unknown[0]!r}, {suggest(unknown[0], saved)}"
        )
    tasks = _drop_metrics([entry for name, entry in entries.items() if name in offered])
    if not tasks:
        return None
    # Balancing and auxiliary tasks may name other tasks, and do not matter in an evaluation.
    alone = {"tasks": tasks, "auxiliary_tasks": [], "balancing": {"name": "fixed"}}
    experiment = validate_experiment(replace(merged, values={**merged.values, **alone}))
    return LoadedExperiment(
        model,
        experiment.model_copy(update={"balancing": model.balancing}),
        tuple(name for name in entries if name not in offered),
    )


def _drop_metrics(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Remove the metrics that compare with tasks that are not evaluated."""
    names = [entry["name"] for entry in entries]
    return [
        {**entry, "metrics": select_available(entry.get("metrics") or (), names)}
        for entry in entries
    ]


def _find_entries(
    values: Any, saved: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]] | None:
    """Return {task: entry}, where a plain name stands for the saved entry; None if malformed."""
    if not isinstance(values, list) or not values:
        return None
    entries: dict[str, dict[str, Any]] = {}
    for value in values:
        entry = saved.get(value, {"name": value}) if isinstance(value, str) else value
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            return None
        entries[entry["name"]] = entry
    return entries


def _find_offered_tasks(data: Any) -> set[str] | None:
    """Return the names of the tasks that a dataset has labels for; None if its section is wrong."""
    try:
        return set(get_task_defaults(ComponentConfig(**data)))
    except (ConfigError, TypeError, ValidationError):
        return None
