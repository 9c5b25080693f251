"""From datasets to batches: augmentation in workers, exact order, nothing lost or seen twice.

A training draw is (epoch, index), and all randomness of a sample comes from (seed, epoch, index):
batches are the same for any number of workers, and a run resumed inside an epoch sees the same.
Ranks share each batch; in evaluation they share the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from densemtl.config.sections import FitMode
from densemtl.data.base import DenseDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.distributed.collectives import get_per_rank_batch_size, get_rank, get_world_size
from densemtl.errors import DataError
from densemtl.ops.layouts import to_tensor
from densemtl.tasks.base import Task
from densemtl.transforms.geometry import GeometricTransform, pad_to_size, stretch_to_size
from densemtl.transforms.random_geometry import RandomGeometry
from densemtl.types import Batch, ImagePlacement, Sample, Size

SHUFFLE_BUFFER_SHARDS = 8
"""Chunks of a dataset that are shuffled together."""

EpochIndex = tuple[int, int]
"""(epoch, index into the dataset)."""

ImageTransform = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]
"""HxWx3 RGB -> the same layout, with other colours at the same places."""


class TrainDataset(Dataset[tuple[Sample, ImagePlacement]]):
    """A dataset seen through random geometry and colour, at one size."""

    def __init__(
        self,
        dataset: DenseDataset,
        tasks: Sequence[Task],
        size: Size,
        fit: FitMode,
        random_geometry: RandomGeometry,
        image_transforms: Sequence[ImageTransform],
        seed: int,
    ) -> None:
        self.dataset, self.tasks = dataset, tasks
        self.size, self.fit = size, fit
        self.random_geometry, self.image_transforms, self.seed = (
            random_geometry,
            image_transforms,
            seed,
        )

    def __getitem__(self, epoch_index: EpochIndex) -> tuple[Sample, ImagePlacement]:
        epoch, index = epoch_index
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.dataset[index]
        geometry = self.random_geometry.sample(sample, self.size, self.fit, rng)
        image = geometry.apply_image(sample.image)
        for recolour in self.image_transforms:
            image = recolour(image, rng)
        targets = self.warp_labels(sample, geometry)
        return Sample(image, targets, sample.id), ImagePlacement(self.size, (0, 0, *self.size))

    def warp_labels(
        self, sample: Sample, transform: GeometricTransform
    ) -> dict[str, NDArray[np.generic]]:
        """The labels that the sample has of each task, as the geometry shows them."""
        labels = {task: _get_checked_label(task, sample) for task in self.tasks}
        return {
            task.name: task.transform_label(label, transform)
            for task, label in labels.items()
            if label is not None
        }

    def __len__(self) -> int:
        return len(self.dataset)


class EvalDataset(Dataset[tuple[Sample, ImagePlacement]]):
    """A dataset whose images fit the network's input and whose labels stay as they are."""

    def __init__(self, dataset: DenseDataset, size: Size, fit: FitMode) -> None:
        self.dataset, self.size, self.fit = dataset, size, fit

    def __getitem__(self, index: int) -> tuple[Sample, ImagePlacement]:
        sample = self.dataset[index]
        if self.fit == "pad" and (sample.size[0] > self.size[0] or sample.size[1] > self.size[1]):
            raise DataError(
                f"image {sample.id} is {sample.size[0]}x{sample.size[1]}, larger than the padded "
                f"input {self.size[0]}x{self.size[1]}: raise input.size, or set input.fit=resize"
            )
        geometry, frame = (stretch_to_size if self.fit == "resize" else pad_to_size)(
            sample.size, self.size
        )
        return Sample(geometry.apply_image(sample.image), sample.targets, sample.id), frame

    def __len__(self) -> int:
        return len(self.dataset)


class EpochSampler(Sampler[EpochIndex]):
    """A fresh shuffle an epoch, from (seed, epoch) alone; can start inside the epoch.

    Chunks are shuffled, and then, `MIXED` neighbours at a time, the images in them. Of N ranks each
    takes every Nth draw, so that what they take makes up the same batches.
    """

    def __init__(self, length: int, seed: int, shard_sizes: Sequence[int] = ()) -> None:
        self.length, self.seed, self.shard_sizes = length, seed, shard_sizes
        self.epoch = 0
        self.start_index = 0

    def __iter__(self) -> Iterator[EpochIndex]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = self._shuffle_by_shards(rng) if self.shard_sizes else rng.permutation(self.length)
        for index in order[self.start_index + get_rank() :: get_world_size()]:
            yield self.epoch, int(index)

    def _shuffle_by_shards(self, rng: np.random.Generator) -> NDArray[np.int64]:
        chunks = np.split(np.arange(self.length), np.cumsum(self.shard_sizes)[:-1])
        shuffled = [chunks[index] for index in rng.permutation(len(chunks))]
        groups = [
            shuffled[start : start + SHUFFLE_BUFFER_SHARDS]
            for start in range(0, len(shuffled), SHUFFLE_BUFFER_SHARDS)
        ]
        return np.concatenate([rng.permutation(np.concatenate(group)) for group in groups])

    def __len__(self) -> int:
        return len(range(self.start_index + get_rank(), self.length, get_world_size()))


class TrainCollate:
    """Samples -> Batch; tasks without a label become all void."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks

    def __call__(self, items: Sequence[tuple[Sample, ImagePlacement]]) -> Batch:
        """B samples with images of one size -> a batch; smaller labels sit in the top left."""
        samples = [sample for sample, _ in items]
        frames = [frame for _, frame in items]
        size = max(f.size[0] for f in frames), max(f.size[1] for f in frames)
        image = torch.from_numpy(np.stack([sample.image for sample in samples]))
        targets = {}
        for task in self.tasks:
            labels = [_pad_label(self.get_label(task, sample), task, size) for sample in samples]
            targets[task.name] = to_tensor(np.stack(labels))
        ids = [sample.id for sample in samples]
        return Batch(image.permute(0, 3, 1, 2), targets, ids, frames)

    def get_label(self, task: Task, sample: Sample) -> NDArray[np.generic] | None:
        """As `TrainDataset` left it, which has looked at it."""
        return sample.targets.get(task.name)


class EvalCollate(TrainCollate):
    """Likewise of samples whose labels nobody has looked at yet."""

    def get_label(self, task: Task, sample: Sample) -> NDArray[np.generic] | None:
        """As it came from the dataset, if it is one of such a task."""
        return _get_checked_label(task, sample)


def _get_checked_label(task: Task, sample: Sample) -> NDArray[np.generic] | None:
    """A task's label, if the sample has one.

    Raises:
        DataError: it is no label of such a task.
    """
    label = sample.targets.get(task.name)
    misfit = "" if label is None else task.find_label_error(label)
    if misfit:
        raise DataError(
            f"image {sample.id}: the label of {task.name!r} {misfit}: change the task's kind or"
            " options to suit the data"
        )
    return label


def _pad_label(label: NDArray[np.generic] | None, task: Task, size: Size) -> NDArray[np.generic]:
    """A label in the top left of a map of void, or as it is where it has the size."""
    if label is not None and label.shape[:2] == size:
        return label
    canvas = task.make_empty_label(size)
    if label is not None:
        canvas[: label.shape[0], : label.shape[1]] = label
    return canvas


def make_train_loader(
    dataset: TrainDataset, batch_size: int, num_workers: int, pin_memory: bool = False
) -> ErrorForwardingDataLoader[Batch]:
    """Shuffled batches of one size, or a rank's share of them; the last, smaller one is left out.

    Raises:
        DataError: fewer images than one batch, which would train nothing.
        ConfigError: ranks cannot share a batch alike.
    """
    if len(dataset) < batch_size:
        raise DataError(
            f"{len(dataset)} training images do not fill one batch of {batch_size}: "
            f"lower loader.batch_size or add images"
        )
    return ErrorForwardingDataLoader(
        dataset,
        TrainCollate(dataset.tasks),
        batch_size=get_per_rank_batch_size(batch_size),
        sampler=EpochSampler(len(dataset), dataset.seed, dataset.dataset.shard_sizes),
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )


def make_eval_loader(
    dataset: EvalDataset,
    tasks: Sequence[Task],
    batch_size: int,
    num_workers: int,
    pin_memory: bool = False,
) -> ErrorForwardingDataLoader[Batch]:
    """Every image exactly once, in order; of N ranks each takes every Nth image."""
    return ErrorForwardingDataLoader(
        dataset,
        EvalCollate(tasks),
        batch_size=batch_size,
        sampler=range(get_rank(), len(dataset), get_world_size()),
        num_workers=num_workers,
        pin_memory=pin_memory,
    )
