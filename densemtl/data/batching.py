"""Samplers, collate functions and loaders that turn samples into batches.

The sampler yields pairs (epoch, index), and all randomness of a training sample is seeded by
(seed, epoch, index). Batches are therefore the same for any number of worker processes, and a run
that is resumed in the middle of an epoch gets the same remaining batches. In training, ranks share
each batch; in evaluation, ranks share the images of the split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from densemtl.transforms.color_transforms import ImageTransform
from densemtl.transforms.geometry import GeometricTransform, pad_to_size, stretch_to_size
from densemtl.transforms.random_geometry import RandomGeometry
from densemtl.types import Batch, ImagePlacement, Sample, Size

SHUFFLE_BUFFER_SHARDS = 8
"""Number of shards whose images are shuffled together."""

EpochIndex = tuple[int, int]
"""Pair (epoch, index into the dataset)."""


class TrainDataset(Dataset[tuple[Sample, ImagePlacement]]):
    """Dataset of augmented training samples that all have one size.

    The index is a pair (epoch, index), so that every epoch sees other random transforms.

    Args:
        dataset: training split.
        tasks: tasks whose labels are transformed; other labels are dropped.
        size: (height, width) of the network's input in pixels.
        fit: "resize" stretches images to `size`; "pad" keeps their pixels and pads or crops.
        random_geometry: distribution of the geometric transforms.
        image_transforms: color transforms of the image, applied in this order after the geometry.
        seed: seed of all random transforms.
        border: value of each channel outside the image, see `GeometricTransform.apply_image`.
    """

    def __init__(
        self,
        dataset: DenseDataset,
        tasks: Sequence[Task],
        size: Size,
        fit: FitMode,
        random_geometry: RandomGeometry,
        image_transforms: Sequence[ImageTransform],
        seed: int,
        border: Sequence[float] | None = None,
    ) -> None:
        self.border = border
        self.dataset, self.tasks = dataset, tasks
        self.size, self.fit = size, fit
        self.random_geometry, self.image_transforms, self.seed = (
            random_geometry,
            image_transforms,
            seed,
        )

    def __getitem__(self, epoch_index: EpochIndex) -> tuple[Sample, ImagePlacement]:
        """Read and augment one sample.

        Args:
            epoch_index: (epoch, index into the dataset).

        Returns:
            The augmented sample, and its placement, which covers the whole input.

        Raises:
            DataError: if the sample cannot be read, or a label does not fit its task.
        """
        epoch, index = epoch_index
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.dataset[index]
        geometry = self.random_geometry.sample(sample, self.size, self.fit, rng)
        image = geometry.apply_image(sample.image, self.border)
        for image_transform in self.image_transforms:
            image = image_transform(image, rng)
        targets = self.warp_labels(sample, geometry)
        return Sample(image, targets, sample.id), ImagePlacement(self.size, (0, 0, *self.size))

    def warp_labels(
        self, sample: Sample, transform: GeometricTransform
    ) -> dict[str, NDArray[np.generic]]:
        """Apply a geometric transform to the labels of a sample.

        Args:
            sample: sample as the dataset reads it.
            transform: transform that is also applied to the image.

        Returns:
            {task name: transformed label}, without the tasks that have no label in `sample`.

        Raises:
            DataError: if a label does not fit its task.
        """
        labels = {task: _get_checked_label(task, sample) for task in self.tasks}
        return {
            task.name: task.transform_label(label, transform)
            for task, label in labels.items()
            if label is not None
        }

    def __len__(self) -> int:
        return len(self.dataset)


class EvalDataset(Dataset[tuple[Sample, ImagePlacement]]):
    """Dataset of evaluation samples: images fit the input, labels keep their original size.

    Args:
        dataset: validation split.
        size: (height, width) of the network's input in pixels.
        fit: "resize" stretches images to `size`; "pad" places them unscaled in the middle.
        border: value of each channel outside the image, see `GeometricTransform.apply_image`.
    """

    def __init__(
        self,
        dataset: DenseDataset,
        size: Size,
        fit: FitMode,
        border: Sequence[float] | None = None,
    ) -> None:
        self.dataset, self.size, self.fit = dataset, size, fit
        self.border = border

    def __getitem__(self, index: int) -> tuple[Sample, ImagePlacement]:
        """Read one sample and fit its image to the input.

        Args:
            index: position in the dataset.

        Returns:
            The sample with the fitted image and unchanged labels, and the placement of the
            original image in the input.

        Raises:
            DataError: if the sample cannot be read, or is larger than the padded input.
        """
        sample = self.dataset[index]
        if self.fit == "pad" and (sample.size[0] > self.size[0] or sample.size[1] > self.size[1]):
            raise DataError(
                f"image {sample.id} is {sample.size[0]}x{sample.size[1]}, larger than the padded "
                f"input {self.size[0]}x{self.size[1]}: raise input.size, or set input.fit=resize"
            )
        geometry, frame = (stretch_to_size if self.fit == "resize" else pad_to_size)(
            sample.size, self.size
        )
        image = geometry.apply_image(sample.image, self.border)
        return Sample(image, sample.targets, sample.id), frame

    def __len__(self) -> int:
        return len(self.dataset)


class EpochSampler(Sampler[EpochIndex]):
    """Sampler of a new random order per epoch, which can start in the middle of an epoch.

    The order depends on the seed and the epoch only. If the dataset has shards, the shards are
    shuffled, and then the images within each group of `SHUFFLE_BUFFER_SHARDS` consecutive shards.
    Each of N ranks takes every N-th index, so that together they get the batches of one process.

    Args:
        length: number of images.
        seed: seed of the orders.
        shard_sizes: number of images in each shard; empty if the dataset has no shards.

    Attributes:
        epoch: epoch of the next iteration; the caller sets it.
        start_index: position in the epoch at which the next iteration starts, counted over all
            ranks; the caller sets it.
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
        shards = np.split(np.arange(self.length), np.cumsum(self.shard_sizes)[:-1])
        shuffled = [shards[index] for index in rng.permutation(len(shards))]
        groups = [
            shuffled[start : start + SHUFFLE_BUFFER_SHARDS]
            for start in range(0, len(shuffled), SHUFFLE_BUFFER_SHARDS)
        ]
        return np.concatenate([rng.permutation(np.concatenate(group)) for group in groups])

    def __len__(self) -> int:
        return len(range(self.start_index + get_rank(), self.length, get_world_size()))


class TrainCollate:
    """Collate function of training batches.

    Tasks without a label for an image get a target of ignored pixels only.

    Args:
        tasks: tasks whose targets the batch contains.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks

    def __call__(self, items: Sequence[tuple[Sample, ImagePlacement]]) -> Batch:
        """Join samples to a batch.

        Args:
            items: B pairs of a sample and its placement; all images have the same size.

        Returns:
            The batch. Targets have the largest original size of the items; smaller labels are in
            the top left corner, and the rest are ignored pixels.
        """
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
        """Return the label of a task, which `TrainDataset` has already checked.

        Args:
            task: task of the label.
            sample: sample of a batch.

        Returns:
            The label, or None if the sample has none.
        """
        return sample.targets.get(task.name)


class EvalCollate(TrainCollate):
    """Collate function of evaluation batches, which also checks the labels.

    Args:
        tasks: tasks whose targets the batch contains.
    """

    def get_label(self, task: Task, sample: Sample) -> NDArray[np.generic] | None:
        """Check and return the label of a task.

        Args:
            task: task of the label.
            sample: sample as the dataset read it.

        Returns:
            The label, or None if the sample has none.

        Raises:
            DataError: if the label does not fit the task.
        """
        return _get_checked_label(task, sample)


def _get_checked_label(task: Task, sample: Sample) -> NDArray[np.generic] | None:
    """Return the label of a task, or None if the sample has none.

    Raises:
        DataError: if the label does not fit the task.
    """
    label = sample.targets.get(task.name)
    error = "" if label is None else task.find_label_error(label)
    if error:
        raise DataError(
            f"image {sample.id}: the label of {task.name!r} {error}: change the task's kind or"
            " options to suit the data"
        )
    return label


def _pad_label(label: NDArray[np.generic] | None, task: Task, size: Size) -> NDArray[np.generic]:
    """Pad a label at the right and bottom with ignored pixels; None gives ignored pixels only."""
    if label is not None and label.shape[:2] == size:
        return label
    canvas = task.make_empty_label(size)
    if label is not None:
        canvas[: label.shape[0], : label.shape[1]] = label
    return canvas


def make_train_loader(
    dataset: TrainDataset, batch_size: int, num_workers: int, pin_memory: bool = False
) -> ErrorForwardingDataLoader[Batch]:
    """Create the loader of shuffled training batches.

    With several ranks, each rank gets its share of every batch. The last batch of an epoch is
    dropped if it is smaller than the others.

    Args:
        dataset: augmented training samples.
        batch_size: number of images per batch, over all ranks.
        num_workers: number of worker processes; 0 reads in this process.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.

    Returns:
        The loader; set `loader.sampler.epoch` before each iteration.

    Raises:
        DataError: if there are fewer images than one batch.
        ConfigError: if the batch size is no multiple of the number of ranks.
    """
    if len(dataset) < batch_size:
        raise DataError(
            f"{len(dataset)} training images do not fill one batch of {batch_size}: "
            f"decrease loader.batch_size or add images"
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
    """Create the loader that yields every image of a split exactly once, in order.

    Each of N ranks gets every N-th image.

    Args:
        dataset: evaluation samples.
        tasks: tasks whose targets the batches contain.
        batch_size: number of images per batch and rank.
        num_workers: number of worker processes; 0 reads in this process.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.

    Returns:
        The loader.
    """
    return ErrorForwardingDataLoader(
        dataset,
        EvalCollate(tasks),
        batch_size=batch_size,
        sampler=range(get_rank(), len(dataset), get_world_size()),
        num_workers=num_workers,
        pin_memory=pin_memory,
    )
