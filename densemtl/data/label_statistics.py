"""Statistics of the images and labels of one split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from densemtl.data.base import DenseDataset
from densemtl.errors import DataError
from densemtl.losses.class_weights import ClassCounts
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.depth import Depth
from densemtl.types import IGNORE_INDEX, Sample


@dataclass
class TaskStatistics:
    """Statistics of the labels of one task in one split.

    Attributes:
        images: number of examined images with a label.
        pixels: number of pixels of these labels.
        ignored: number of ignored pixels among them.
        classes: counts of the ids; None without labels, or if the task has no ids.
        minimum: smallest value of a valid pixel, in the unit of the task; NaN without values.
        maximum: largest value of a valid pixel; NaN without values.
        medians: median of the valid values of each image; empty for tasks with ids.
    """

    images: int = 0
    pixels: int = 0
    ignored: int = 0
    classes: ClassCounts | None = None
    minimum: float = np.nan
    maximum: float = np.nan
    medians: list[float] = field(default_factory=list)

    @property
    def ignored_share(self) -> float:
        """Share of ignored pixels, 0 to 1; 1 without labels."""
        return self.ignored / self.pixels if self.pixels else 1.0

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of pixels of each id; empty if the task has no ids."""
        return np.zeros(0, np.int64) if self.classes is None else self.classes.pixels

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each id among the valid pixels, 0 to 1."""
        return np.asarray(self.counts / max(int(self.counts.sum()), 1))


@dataclass
class SplitStatistics:
    """Statistics of one split.

    Attributes:
        split: "train" or "val".
        images: number of images of the split.
        left_out: {reason: number of files that were found but are no images of the split}.
        examined: number of images that were read or could not be read.
        unreadable: error message of each image that could not be read.
        tasks: {task: statistics of its labels}.
        digests: {hash of an image: id of the first image with this content}.
        duplicates: number of examined images with the content of another one of the split.
        errors: what is impossible in the labels.
        channel_moments: for each channel of the images the number of values, their sum and the sum
            of their squares, shape (3, C).
    """

    split: str
    images: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    examined: int = 0
    unreadable: list[str] = field(default_factory=list)
    tasks: dict[str, TaskStatistics] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0
    errors: list[str] = field(default_factory=list)
    channel_moments: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 0)))

    @property
    def channel_mean(self) -> NDArray[np.float64]:
        """Mean of each channel, where 255 of 8-bit images is 1."""
        count, total, _ = self.channel_moments
        return np.asarray(total / count / 255)

    @property
    def channel_std(self) -> NDArray[np.float64]:
        """Standard deviation of each channel, likewise."""
        count, total, squares = self.channel_moments
        return np.asarray(np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0)) / 255)

    @property
    def is_complete(self) -> bool:
        """Whether all images of the split were examined."""
        return self.examined == self.images


def collect_statistics(
    dataset: DenseDataset, tasks: Sequence[Task], max_images: int | None = None
) -> SplitStatistics:
    """Compute the statistics of a split.

    Args:
        dataset: the split.
        tasks: tasks whose labels are examined, if the split has them.
        max_images: largest number of images that are read; None reads all.

    Returns:
        The statistics of the images that were read.
    """
    statistics = SplitStatistics(dataset.split, len(dataset), dataset.left_out)
    present = [task for task in tasks if task.name in dataset.tasks]
    statistics.tasks = {task.name: TaskStatistics() for task in present}
    for index in select_images(dataset, max_images):
        statistics.examined += 1
        try:
            sample = dataset[index]
        except DataError as error:
            statistics.unreadable.append(str(error))
            continue
        _add_image(statistics, sample)
        for task in present:
            if task.name in sample.targets:
                _add_label(statistics, task, sample)
    return statistics


def select_images(dataset: DenseDataset, max_images: int | None) -> list[int]:
    """Select the images to examine, always the same ones.

    Args:
        dataset: the split.
        max_images: largest number of images; None selects all.

    Returns:
        Indices, evenly spaced; the first images if the split is stored in shards, so that few
        shards are opened.
    """
    count = len(dataset) if max_images is None else min(max_images, len(dataset))
    if count == len(dataset) or dataset.shard_sizes:
        return list(range(count))
    return [index * len(dataset) // count for index in range(count)]


def count_ids(task: CategoricalTask, label: NDArray[np.generic]) -> ClassCounts:
    """Count the ids of a label map.

    Args:
        task: the task.
        label: a valid label map, shape (H, W).

    Returns:
        The counts of this image.
    """
    counts = np.bincount(label.reshape(-1), minlength=IGNORE_INDEX + 1)
    return ClassCounts.of_image(counts[: task.num_ids].astype(np.int64))


def count_classes(
    dataset: DenseDataset, tasks: Sequence[CategoricalTask], indices: Iterable[int]
) -> dict[str, ClassCounts]:
    """Count the ids in the labels of some images.

    Args:
        dataset: the split.
        tasks: tasks with ids.
        indices: the images to read.

    Returns:
        {task: counts}, all 0 without labels.

    Raises:
        DataError: if an image cannot be read, or a label map is not one of its task.
    """
    counts = {task.name: ClassCounts.zeros(task.num_ids) for task in tasks}
    for index in indices:
        sample = dataset[index]
        for task in tasks:
            label = sample.targets.get(task.name)
            if label is None:
                continue
            if error := task.find_label_error(label):
                raise DataError(f"{dataset.split}: {sample.id}: the {task.name} label {error}")
            counts[task.name] += count_ids(task, label)
    return counts


def _add_image(statistics: SplitStatistics, sample: Sample) -> None:
    digest = hash_image(sample)
    statistics.duplicates += digest in statistics.digests
    statistics.digests.setdefault(digest, sample.id)
    values = sample.image.reshape(-1, sample.image.shape[2])
    moments = [
        np.full(values.shape[1], len(values), np.float64),
        values.sum(axis=0, dtype=np.float64),
        np.square(values, dtype=np.float64).sum(axis=0),
    ]
    if statistics.channel_moments.size == 0:
        statistics.channel_moments = np.zeros((3, values.shape[1]))
    statistics.channel_moments += moments


def hash_image(sample: Sample) -> str:
    """Compute a hash of an image.

    Args:
        sample: the sample; its labels are not used.

    Returns:
        Hexadecimal digits that depend on the size and the pixels.
    """
    pixels = np.ascontiguousarray(sample.image)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _add_label(statistics: SplitStatistics, task: Task, sample: Sample) -> None:
    label = sample.targets[task.name]
    error = task.find_label_error(label)
    if error:
        statistics.errors.append(f"{statistics.split}: {sample.id}: the {task.name} label {error}")
        return
    entry = statistics.tasks[task.name]
    entry.images += 1
    entry.pixels += label.shape[0] * label.shape[1]
    if isinstance(task, CategoricalTask):
        image = count_ids(task, label)
        entry.ignored += label.size - int(image.pixels.sum())
        entry.classes = image if entry.classes is None else entry.classes + image
        return
    values = np.asarray(label, np.float32).reshape(*label.shape[:2], -1)
    valid = values[~np.isnan(values).any(axis=-1)]
    entry.ignored += label.shape[0] * label.shape[1] - len(valid)
    if not valid.size:
        return
    where = f"{statistics.split}: {sample.id}: the {task.name} label"
    if not np.isfinite(valid).all():
        statistics.errors.append(f"{where} has infinite values (use NaN for unknown values)")
    elif isinstance(task, Depth) and valid.min() < 0:
        statistics.errors.append(f"{where} has negative depths (use NaN for unknown depth)")
    entry.minimum = float(np.fmin(entry.minimum, valid.min()))
    entry.maximum = float(np.fmax(entry.maximum, valid.max()))
    entry.medians.append(float(np.median(valid)))
