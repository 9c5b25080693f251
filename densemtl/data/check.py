"""Check of the images and labels of both splits before training.

Impossible data is an error, suspicious data a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from densemtl.data.base import UNREADABLE, DenseDataset
from densemtl.data.datasets.mixed import MixedDataset
from densemtl.data.label_statistics import (
    SplitStatistics,
    TaskStatistics,
    collect_statistics,
    hash_image,
)
from densemtl.errors import DataError, join_names
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth

MAX_IGNORED_SHARE = 0.9
"""Share of ignored pixels above which a task is suspicious."""
PLAUSIBLE_DEPTH = (0.1, 150.0)
"""Range of plausible median depths in meters; centimeters and millimeters lie above it."""
MAX_NAMES = 5
"""Number of names that a message lists."""
_COMPARED_IMAGES = 8


@dataclass(frozen=True)
class DataWarning:
    """Warning about suspicious data.

    Attributes:
        text: one line.
        task: name of the task whose labels are suspicious; None for images.
    """

    text: str
    task: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class DataCheck:
    """Result of the check of both splits.

    Attributes:
        train: statistics of the training split.
        val: statistics of the validation split.
        errors: what is impossible; one line each.
        warnings: what is suspicious; one line each.
    """

    train: SplitStatistics
    val: SplitStatistics
    errors: list[str]
    warnings: list[DataWarning]


def check_data(
    train: DenseDataset, val: DenseDataset, tasks: Sequence[Task], max_images: int | None = None
) -> DataCheck:
    """Examine the images and labels of both splits; random number generators are not used.

    Args:
        train: training split.
        val: validation split.
        tasks: tasks whose labels are examined.
        max_images: largest number of images per split that are read; None reads all.

    Returns:
        Statistics, errors and warnings.
    """
    splits = [collect_statistics(dataset, tasks, max_images) for dataset in (train, val)]
    # A file that both splits contain is reported once.
    errors = list(dict.fromkeys(error for split in splits for error in _find_errors(split)))
    warnings = [warning for split in splits for warning in _find_warnings(split, tasks)]
    for dataset in (train, val):
        warnings += [DataWarning(text, task) for task, text in dataset.missing_labels.items()]
    warnings += [DataWarning(text) for text in _compare_names(train, val)]
    warnings += [DataWarning(text) for text in _compare_contents(*splits)]
    return DataCheck(splits[0], splits[1], errors, warnings)


def check_sets(
    train: DenseDataset, val: DenseDataset, tasks: Sequence[Task], max_images: int | None = None
) -> dict[str, DataCheck]:
    """Examine both splits as `check_data` does, each set of a mixture on its own.

    Args:
        train: training split.
        val: validation split.
        tasks: tasks whose labels are examined, where a set has them.
        max_images: largest number of images per set and split that are read; None reads all.

    Returns:
        {name of the set: its check, whose messages begin with this name}; the name is "" if there
        is only one set. Images of val with the content of an image of train are searched in all
        pairs of sets.
    """
    if not (isinstance(train, MixedDataset) and isinstance(val, MixedDataset)):
        return {"": check_data(train, val, tasks, max_images)}
    checks = {
        name: check_data(part, own, _select_tasks(tasks, own), max_images)
        for name, part in train.parts.items()
        for own in [val.all_parts[name]]  # validation splits have no labels of background
    }
    return {
        name: replace(
            check,
            errors=[f"{name}: {error}" for error in check.errors],
            warnings=[
                DataWarning(f"{name}: {text}", task)
                for text, task in [
                    *((warning.text, warning.task) for warning in check.warnings),
                    *((text, None) for text in _compare_with_others(checks, name)),
                ]
            ],
        )
        for name, check in checks.items()
    }


def _select_tasks(tasks: Sequence[Task], dataset: DenseDataset) -> list[Task]:
    return [task for task in tasks if task.name in dataset.tasks]


def _compare_with_others(checks: Mapping[str, DataCheck], name: str) -> list[str]:
    """Compare the images of val of a set with the images of train of the other sets."""
    others = [check.train for other, check in checks.items() if other != name]
    return [text for train in others for text in _compare_contents(train, checks[name].val)]


def _find_errors(statistics: SplitStatistics) -> list[str]:
    split = statistics.split
    if not statistics.images:
        return [f"{split}: no images"]
    errors = list(statistics.unreadable) + statistics.errors
    if split == "train" and statistics.is_complete and not errors:
        errors = [
            f"{split}: {task}: all pixels of all labels are ignored: nothing can be learned "
            "(check the ignored values, or remove the task)"
            for task, entry in statistics.tasks.items()
            if entry.ignored == entry.pixels
        ]
    return errors


def _find_warnings(statistics: SplitStatistics, tasks: Sequence[Task]) -> list[DataWarning]:
    warnings = []
    if count := statistics.left_out.get(UNREADABLE):
        total = statistics.images + count
        text = f"{statistics.split}: {count} of {total} images left out: {UNREADABLE}"
        warnings.append(DataWarning(text))
    for task in tasks:
        entry = statistics.tasks.get(task.name)
        if entry is None or (statistics.unreadable and not entry.images):
            continue
        found = _find_label_warnings(task, entry, statistics.is_complete)
        where = f"{statistics.split}: {task.name}"
        warnings += [DataWarning(f"{where}: {text}", task.name) for text in found]
    return warnings


def _find_label_warnings(task: Task, entry: TaskStatistics, is_complete: bool) -> list[str]:
    examined = "all" if is_complete else "all examined"
    if entry.ignored == entry.pixels:
        return [f"{examined} pixels are ignored: metrics have no value"]
    warnings = []
    if entry.ignored_share > MAX_IGNORED_SHARE:
        warnings.append(f"{entry.ignored_share:.1%} of the pixels are ignored")
    if isinstance(task, CategoricalTask):
        return warnings + _find_class_warnings(task, entry, is_complete)
    if entry.minimum == entry.maximum:
        warnings.append(f"{examined} values are {entry.minimum:g}")
    if isinstance(task, Depth):
        warnings += _find_depth_warnings(entry)
    return warnings


def _find_class_warnings(
    task: CategoricalTask, entry: TaskStatistics, is_complete: bool
) -> list[str]:
    names = get_class_names(task)
    present = [name for name, count in zip(names, entry.counts, strict=True) if count]
    if len(present) == 1:
        examined = "all" if is_complete else "all examined"
        return [f"{examined} pixels have the single class {present[0]!r}: metrics say little"]
    absent = [name for name in names if name not in present]
    # A class that is absent from a part of the images may well occur in the others.
    if absent and is_complete:
        return [
            f"{len(absent)} of {len(names)} classes never occur: {join_names(absent, MAX_NAMES)}"
        ]
    return []


def _find_depth_warnings(entry: TaskStatistics) -> list[str]:
    median = float(np.median(entry.medians))
    low, high = PLAUSIBLE_DEPTH
    warnings = []
    if not low <= median <= high:
        side = "millimeters or centimeters" if median > high else "normalized values or kilometers"
        warnings.append(
            f"the median depth is {median:g} m: is the file in {side}? (set the scale of the label)"
        )
    if entry.minimum == 0:
        warnings.append("some depths are 0 m: 0 usually marks unknown depth, which is NaN here")
    return warnings


def get_class_names(task: CategoricalTask) -> Sequence[str]:
    """Return the name of each id of a task.

    Args:
        task: a task with ids.

    Returns:
        The class names; "negative" and "positive" for binary tasks.
    """
    return task.class_names if isinstance(task, Classification) else ("negative", "positive")


def _compare_names(train: DenseDataset, val: DenseDataset) -> list[str]:
    """Report names in both splits, unless they name different images of two folders."""
    positions = {name: index for index, name in enumerate(train.ids)}
    shared = [(name, index) for index, name in enumerate(val.ids) if name in positions]
    if not shared:
        return []
    try:
        are_different = all(
            hash_image(train[positions[name]]) != hash_image(val[index])
            for name, index in shared[:_COMPARED_IMAGES]
        )
    except DataError:
        are_different = False
    if are_different:
        return []
    names = join_names([name for name, _ in shared], MAX_NAMES)
    return [f"{len(shared)} of {len(val)} images of val are in train by their name: {names}"]


def _compare_contents(train: SplitStatistics, val: SplitStatistics) -> list[str]:
    shared: Mapping[str, str] = {
        val_id: train.digests[digest]
        for digest, val_id in val.digests.items()
        if digest in train.digests
    }
    if not shared:
        return []
    pairs = join_names([f"{first} = {second}" for first, second in shared.items()], MAX_NAMES)
    return [
        f"{len(shared)} of {val.examined} examined images of val have the content of an image of"
        f" train: {pairs}"
    ]
