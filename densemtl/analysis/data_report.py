"""Tables and a picture of the data that a network is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from rich.table import Table

from densemtl.data.base import DenseDataset
from densemtl.data.check import DataCheck, get_class_names
from densemtl.data.datasets.mixed import MixedDataset
from densemtl.data.label_statistics import SplitStatistics, TaskStatistics
from densemtl.errors import DataError
from densemtl.losses.class_weights import WEIGHT_METHODS, compute_class_weights
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.types import RGBImage, Sample
from densemtl.visualization.panels import draw_prediction_panel, stack_vertically

MAX_SAMPLES = 4

MIN_STD = 1e-6
"""Standard deviation below which a channel is constant."""


def make_data_tables(check: DataCheck, tasks: Sequence[Task]) -> list[Table]:
    """Make the tables of images, labels and classes of both splits.

    Args:
        check: result of the check.
        tasks: the examined tasks.

    Returns:
        One table of images, one of labels, and one of classes for each task with ids.
    """
    splits = (check.train, check.val)
    labels = Table("split", "task", "labeled", "ignored %", "values", "median")
    for split in splits:
        for task, entry in split.tasks.items():
            labels.add_row(split.split, task, str(entry.images), *_format_values(entry))
    classes = [
        _make_class_table(task, splits) for task in tasks if isinstance(task, CategoricalTask)
    ]
    return [_make_image_table(splits), labels, *classes]


def describe_channels(checks: Iterable[DataCheck]) -> str:
    """Return the mean and standard deviation of the training images, as keys of a configuration.

    Args:
        checks: results of the checks of all sets.

    Returns:
        Two lines; empty if no image was read. The standard deviation of a constant channel is 1.
    """
    moments = [each.train.channel_moments for each in checks if each.train.channel_moments.size]
    if not moments:
        return ""
    joint = SplitStatistics("train", 0, channel_moments=np.sum(moments, axis=0))
    stds = [std if std > MIN_STD else 1.0 for std in joint.channel_std.tolist()]
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values)
        for values in (joint.channel_mean.tolist(), stds)
    )
    return (
        "Mean and standard deviation of the channels of train; for other channels than RGB, set"
        " them in the configuration or as overrides:\n"
        f'  "backbone.mean=[{mean}]" "backbone.std=[{std}]"'
    )


def draw_samples(
    dataset: DenseDataset, tasks: Sequence[Task], count: int = MAX_SAMPLES
) -> RGBImage:
    """Draw the first images that can be read, of each set of a mixture, with their labels.

    Args:
        dataset: the split.
        tasks: tasks in the order of their columns.
        count: largest number of images; of a mixture, at least one per set.

    Returns:
        A uint8 RGB image with one row per image.

    Raises:
        DataError: if no image can be read.
    """
    parts = list(dataset.parts.values()) if isinstance(dataset, MixedDataset) else [dataset]
    samples = [
        sample
        for part in parts
        for sample in islice(_iter_readable(part), max(count // len(parts), 1))
    ]
    if not samples:
        raise DataError(f"{dataset.split}: no image can be read")
    return stack_vertically(
        [draw_prediction_panel(each.image, each.targets, None, tasks) for each in samples]
    )


def _iter_readable(dataset: DenseDataset) -> Iterator[Sample]:
    for index in range(len(dataset)):
        try:
            yield dataset[index]
        except DataError:
            continue


def _make_image_table(splits: Sequence[SplitStatistics]) -> Table:
    table = Table("split", "images", "examined", "unreadable", "duplicates", "left out")
    for split in splits:
        numbers = (split.images, split.examined, len(split.unreadable), split.duplicates)
        left_out = [f"{count} {reason}" for reason, count in split.left_out.items() if count]
        table.add_row(split.split, *map(str, numbers), ", ".join(left_out))
    return table


def _format_values(entry: TaskStatistics) -> tuple[str, str, str]:
    ignored = f"{100 * entry.ignored_share:.2f}"
    if not entry.medians:
        return ignored, "", ""
    median = sorted(entry.medians)[len(entry.medians) // 2]
    return ignored, f"{entry.minimum:.4g} to {entry.maximum:.4g}", f"{median:.4g}"


def _make_class_table(task: CategoricalTask, splits: Sequence[SplitStatistics]) -> Table:
    present = [split for split in splits if task.name in split.tasks]
    weights = _compute_weights(task, splits[0])
    table = Table(task.name, *(f"{split.split} %" for split in present), *weights)
    for index, name in enumerate(get_class_names(task)):
        entries = [split.tasks[task.name] for split in present]
        shares = [f"{100 * e.shares[index]:.3f}" if e.counts.size else "" for e in entries]
        table.add_row(name, *shares, *(f"{values[index]:.4g}" for values in weights.values()))
    return table


def _compute_weights(task: CategoricalTask, train: SplitStatistics) -> dict[str, list[float]]:
    """Return {method: class weights from the training labels}; empty without labels."""
    entry = train.tasks.get(task.name)
    if entry is None or entry.classes is None:
        return {}
    return {f"{m} weight": compute_class_weights(m, entry.classes) for m in WEIGHT_METHODS}
