"""Checks of a custom dataset that detect data which would train without being what is meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.data.file_dataset import LabelFiles
from densemtl.distributed.collectives import is_main_process
from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.types import IGNORE_INDEX, Split

MAX_CHECKED_LABELS = 16
"""Number of label maps of a task and split whose values are checked before training."""

MIN_POSITIVE_SHARE = 0.5
"""Share of positive pixels among those that are not 0 below which users are informed."""


def check_disjoint(ids: Collection[str], other_ids: Collection[str], source: str) -> None:
    """Check that no image is in both splits.

    Args:
        ids: ids of the images of one split.
        other_ids: ids of the images of the other split.
        source: the files of the lists, for the error message.

    Raises:
        DataError: if an id is in both.
    """
    if shared := sorted(set(ids) & set(other_ids)):
        raise DataError(
            f"{source}: images in both splits: {len(shared)}, the first is {shared[0]!r};"
            " validate on other images than those of the training"
        )


def check_missing_labels(
    ids: Sequence[str], labels: LabelFiles, task: str, split: Split, *, allow_missing: bool
) -> str:
    """Report the images of a split that have no label of a task.

    In the training split they are an error unless they are allowed; otherwise they are counted in
    a printed line.

    Args:
        ids: ids of the images of the split.
        labels: label files of the task.
        task: name of the task.
        split: "train" or "val".
        allow_missing: whether the configuration allows missing labels.

    Returns:
        The printed line; "" if every image has a label.

    Raises:
        DataError: if labels are missing that must be there.
    """
    missing = [name for name in ids if name not in labels.files]
    if not missing:
        return ""
    message = (
        f"{labels.searched_path}: {len(missing)} of the {len(ids)} images of {split!r} have no"
        f" {task} label, the first is {missing[0]!r}"
    )
    if split == "train" and not allow_missing:
        raise DataError(
            f"{message}; check the names of the label files, or set"
            f" data.labels.{task}.allow_missing=true"
        )
    if is_main_process():
        print(message)
    return message


@dataclass
class _CheckedLabels:
    """Values of some label maps of a task.

    Attributes:
        stored: the stored values; empty for float labels.
        used: the values that are not ignored; for float labels only whether there is any.
        count: number of label maps that were read.
        marked: number of pixels above 0, for binary labels.
        positive: number of positive pixels among them.
    """

    stored: set[float] = field(default_factory=set)
    used: set[float] = field(default_factory=set)
    count: int = 0
    marked: int = 0
    positive: int = 0


def check_label_values(spec: LabelSpec, labels: LabelFiles, task: str, split: Split) -> None:
    """Check the values of some label maps, evenly spaced in the split.

    Label maps that cannot be read are skipped here; they are reported when the sample is read. A
    line is printed if most pixels of soft training labels are below the default threshold.

    Args:
        spec: description of the label maps.
        labels: label files of the task.
        task: name of the task.
        split: "train" or "val".

    Raises:
        DataError: if all pixels are ignored, or 255 is ignored but seems to be a class.
    """
    encoding = spec.find_encoding(task)
    checked = _collect_values(spec, labels, task)
    if checked.count and not checked.used:
        raise DataError(
            f"{labels.searched_path}: all pixels of the {checked.count} checked {task} labels are"
            f" ignored; check data.labels.{task}.ignore_values, and for classes state the stored"
            " ids in class_values"
        )
    is_255_implicit = encoding == "classes" and spec.ignores_255_by_default()
    if is_255_implicit and IGNORE_INDEX in checked.stored and len(checked.used) == 1:
        raise DataError(
            f"{labels.searched_path}: the {checked.count} checked {task} labels contain a single"
            f" class and 255, which is ignored; if 255 is a class, set"
            f" data.labels.{task}.class_values to the stored values of the classes, such as"
            " [0, 255]; otherwise set ignore_values=[255]"
        )
    is_default = split == "train" and "threshold" not in spec.model_fields_set
    if is_default and checked.positive < MIN_POSITIVE_SHARE * checked.marked and is_main_process():
        print(
            f"{labels.searched_path}: only {checked.positive / checked.marked:.1%} of the pixels"
            f" above 0 in the {checked.count} checked {task} labels are positive, since the others"
            f" are not above {spec.threshold:g} of the maximum; to change this, or to confirm it,"
            " set the label's threshold"
        )


def _collect_values(spec: LabelSpec, labels: LabelFiles, task: str) -> _CheckedLabels:
    """Collect the values of the checked label maps."""
    files = list(labels.files.values())
    checked = _CheckedLabels()
    for file in files[:: -(-len(files) // MAX_CHECKED_LABELS)]:
        try:
            target = labels.read(file)
            stored = arrays.read_array(file, spec.key)
        except DataError:
            continue
        checked.count += 1
        if target is None or target.dtype.kind == "f":
            has_value = target is not None and np.isfinite(target).any()
            checked.used |= {1.0} if has_value else set()
            continue
        values = set(np.unique(stored).tolist())
        if spec.find_encoding(task) == "binary":
            _check_binary_values(values, spec, task, file)
            is_used = (target != IGNORE_INDEX).reshape(stored.shape)
            checked.marked += int(np.count_nonzero(stored[is_used]))
            checked.positive += int(np.count_nonzero(target == 1))
        checked.stored |= values
        checked.used |= set(np.unique(target).tolist()) - {IGNORE_INDEX}
    return checked


def _check_binary_values(values: set[float], spec: LabelSpec, task: str, file: Path) -> None:
    """Reject maps of 0, 1 and 255, where 255 usually marks ignored pixels, not the foreground."""
    if {1, 255} <= values <= {0, 1, 255} and not {1, 255} & set(spec.ignore_values):
        raise DataError(
            f"{file}: a binary map with both 1 and 255 is ambiguous; if 255 is ignored, set"
            f" data.labels.{task}.ignore_values=[255]"
        )
