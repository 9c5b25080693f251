"""One of several datasets: its samples with the ids and tasks of the run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from densemtl import registry
from densemtl.config.data_sets import MIXED
from densemtl.config.set_config import SetConfig
from densemtl.data.base import DenseDataset
from densemtl.data.datasets.background_labels import BackgroundLabel, make_background_labels
from densemtl.data.file_dataset import MissingLabelsError
from densemtl.errors import ConfigError, DataError, suggest
from densemtl.types import Sample, Split

LABEL_SPACE = ("kind", "class_names", "channels")
"""Default options that must be equal in all sets with labels of a task."""

Wrap = Callable[[DenseDataset, str, dict[str, Any]], DenseDataset]
"""Function of (dataset, its name, its options) that returns the dataset or a cache of it."""


class SetView(DenseDataset):
    """Split of one set, with the ids and tasks of the run.

    Args:
        name: name of the set.
        config: configuration of the set.
        split: "train" or "val".
        tasks: names of the tasks of the run.
    """

    def __init__(self, name: str, config: SetConfig, split: Split, tasks: Sequence[str]) -> None:
        self._name, self.config = name, config
        offered = find_set_tasks(name, config)
        self._background = _make_background(config, split, tasks)
        super().__init__(split, [task for task in tasks if task in {*offered, *self._background}])
        own_names = {new: old for old, new in (config.tasks or {}).items()}
        self._names = {own_names.get(task, task): task for task in self.tasks if task in offered}
        excluding = {label for each in self._background.values() for label in each.excluded}
        with _name_set_in_errors(name, config, self._names):
            registry.check_kind("data.datasets", config.name)
            dataset: DenseDataset = registry.create(
                "data.datasets",
                config.name,
                split,
                [*self._names, *sorted(excluding - self._names.keys())],
                options=config.options,
            )
        self._use(dataset)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Raise an error, since the tasks are those of the wrapped dataset."""
        raise NotImplementedError("call find_set_tasks")

    def wrap(self, wrap: Wrap) -> None:
        """Replace the dataset by a wrapper of it."""
        with _name_set_in_errors(self._name, self.config, self._names):
            self._use(wrap(self._dataset, self.config.name, self.config.options))

    def _use(self, dataset: DenseDataset) -> None:
        self._dataset = dataset
        self.ids = tuple(f"{self._name}/{each}" for each in dataset.ids)
        self.shard_sizes, self.left_out = dataset.shard_sizes, dataset.left_out
        self.missing_labels = {
            self._names[task]: line
            for task, line in dataset.missing_labels.items()
            if task in self._names
        }

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        targets = {
            self._names[task]: label
            for task, label in sample.targets.items()
            if task in self._names
        }
        for task, background in self._background.items():
            targets[task] = background.make(sample.targets, sample.size)
        return Sample(sample.image, targets, self.ids[index])

    def get_sample_version(self, index: int) -> str:
        """Return the version of the sample in its set."""
        return self._dataset.get_sample_version(index)

    def fingerprint(self) -> str:
        """Return the fingerprint of the set, which depends on the labels that are used."""
        text = f"{self._dataset.fingerprint()} {sorted((self.config.tasks or {}).items())}"
        return f"{text} {sorted(self._background.items())}" if self._background else text


def find_set_tasks(set_name: str, config: SetConfig) -> dict[str, dict[str, Any]]:
    """Return the tasks of a set under their names in the run.

    Args:
        set_name: name of the set, for error messages.
        config: configuration of the set.

    Returns:
        {task name: {option: default value}}, including the kind of a renamed task.

    Raises:
        ConfigError: if the set lacks a task, or is itself a mixture.
        pydantic.ValidationError: if an option of the set is wrong.
    """
    if config.name == MIXED:
        raise ConfigError(f"data.sets.{set_name}: a set cannot be {MIXED!r}; list its sets instead")
    offered = get_own_tasks(config)
    if config.tasks is None:
        return offered
    for task in config.tasks:
        if task not in offered:
            hint = suggest(task, offered)
            raise ConfigError(f"data.sets.{set_name}.tasks: the set has no task {task!r}, {hint}")
    return {
        new: offered[old] if new == old else {"kind": old, **offered[old]}
        for old, new in config.tasks.items()
    }


def get_own_tasks(config: SetConfig) -> dict[str, dict[str, Any]]:
    """Return all tasks of the dataset of a set, under their names in it.

    Args:
        config: configuration of the set.

    Returns:
        {task name: {option: default value}}.

    Raises:
        pydantic.ValidationError: if an option of the set is wrong.
    """
    cls = registry.get_class("data.datasets", config.name)
    own: dict[str, dict[str, Any]] = cls.task_defaults(**parse_set_options(config))
    return own


def _make_background(
    config: SetConfig, split: Split, tasks: Sequence[str]
) -> dict[str, BackgroundLabel]:
    """Return the background labels of a training split."""
    if split != "train" or not config.background:
        return {}
    labels = make_background_labels(config, get_own_tasks(config))
    return {task: label for task, label in labels.items() if task in tasks}


def parse_set_options(config: SetConfig) -> dict[str, Any]:
    """Validate and convert the options of a set.

    Args:
        config: configuration of the set.

    Returns:
        The options for the constructor of its dataset.

    Raises:
        ConfigError: if the dataset does not exist.
        pydantic.ValidationError: if an option is wrong.
    """
    return registry.parse_options(registry.get_class("data.datasets", config.name), config.options)


def check_same_labels(
    task: str, old: Mapping[str, Any], new: Mapping[str, Any], sets: tuple[str, str]
) -> None:
    """Check that two sets have the same kind of labels of a task.

    Args:
        task: name of the task.
        old: default options of the task in one set.
        new: default options of the task in another set.
        sets: names of both sets.

    Raises:
        ConfigError: if an option of both sets differs, or the kind, classes or channels.
    """
    pairs = {key: (old.get(key), new.get(key)) for key in LABEL_SPACE}
    pairs["kind"] = (old.get("kind", task), new.get("kind", task))
    pairs |= {key: (old[key], new[key]) for key in old.keys() & new.keys() - set(LABEL_SPACE)}
    for key in sorted(pairs):
        if pairs[key][0] != pairs[key][1]:
            raise ConfigError(
                f"data.sets: {sets[0]!r} and {sets[1]!r} differ in {key} of {task!r}; make them two"
                f" tasks by data.sets.{sets[1]}.tasks={{{task}: {sets[1]}_{task}}}"
            )


@contextmanager
def _name_set_in_errors(name: str, config: SetConfig, tasks: Mapping[str, str]) -> Iterator[None]:
    """Name the set, the keys of its options and its tasks in the run in errors of its dataset."""
    try:
        yield
    except MissingLabelsError as error:
        reason = f"{name}: {_name_set_in_keys(error.reason, name, config)}"
        raise MissingLabelsError(reason, tasks.get(error.task, error.task)) from error
    except (ConfigError, DataError) as error:
        kind = ConfigError if isinstance(error, ConfigError) else DataError
        raise kind(f"{name}: {_name_set_in_keys(str(error), name, config)}") from error


def _name_set_in_keys(text: str, name: str, config: SetConfig) -> str:
    cls = registry.get_class("data.datasets", config.name)
    options = "|".join(map(re.escape, registry.make_options_model(cls).model_fields))
    return re.sub(rf"\bdata\.(?=({options})\b)", f"data.sets.{name}.", text)
