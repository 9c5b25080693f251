"""From datasets to batches: augmentation in workers, exact order, nothing lost or seen twice.

A training draw is (epoch, index), and all randomness of a sample comes from (seed, epoch, index):
batches are the same for any number of workers, and a run resumed inside an epoch sees the same.
Ranks share each batch; in evaluation they share the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from densemtl.transforms.random_geometry import Augment
from densemtl.data.base import DenseDataset
from densemtl.transforms.geometry import Geometry, pad_to, resize_to
from densemtl.data.dataloader import Loader
from densemtl.distributed.collectives import rank, share, world_size
from densemtl.errors import DataError
from densemtl.config.sections import Fit
from densemtl.tasks.base import Task
from densemtl.types import Batch, Frame, Sample, Size

MIXED = 8
"""Chunks of a dataset that are shuffled together."""

Draw = tuple[int, int]
"""(epoch, index into the dataset)."""

Recolour = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]
"""HxWx3 RGB -> the same layout, with other colours at the same places."""


class TrainView(Dataset[tuple[Sample, Frame]]):
    """A dataset seen through random geometry and colour, at one size."""

    def __init__(
        self,
        dataset: DenseDataset,
        tasks: Sequence[Task],
        size: Size,
        fit: Fit,
        augment: Augment,
        recolour: Sequence[Recolour],
        seed: int,
    ) -> None:
        self.dataset, self.tasks = dataset, tasks
        self.size, self.fit = size, fit
        self.augment, self.recolour, self.seed = augment, recolour, seed

    def __getitem__(self, draw: Draw) -> tuple[Sample, Frame]:
        epoch, index = draw
        rng = np.random.default_rng((self.seed, epoch, index))
        sample = self.dataset[index]
        geometry = self.augment.draw(sample, self.size, self.fit, rng)
        image = geometry.image(sample.image)
        for recolour in self.recolour:
            image = recolour(image, rng)
        targets = self.warp_labels(sample, geometry)
        return Sample(image, targets, sample.id), Frame(self.size, (0, 0, *self.size))

    def warp_labels(self, sample: Sample, geometry: Geometry) -> dict[str, NDArray[np.generic]]:
        """The labels that the sample has of each task, as the geometry shows them."""
        found = {task: _label(task, sample) for task in self.tasks}
        return {
            task.name: task.warp(label, geometry)
            for task, label in found.items()
            if label is not None
        }

    def __len__(self) -> int:
        return len(self.dataset)


class EvalView(Dataset[tuple[Sample, Frame]]):
    """A dataset whose images fit the network's input and whose labels stay as they are."""

    def __init__(self, dataset: DenseDataset, size: Size, fit: Fit) -> None:
        self.dataset, self.size, self.fit = dataset, size, fit

    def __getitem__(self, index: int) -> tuple[Sample, Frame]:
        sample = self.dataset[index]
        if self.fit == "pad" and (sample.size[0] > self.size[0] or sample.size[1] > self.size[1]):
            raise DataError(
                f"image {sample.id} is {sample.size[0]}x{sample.size[1]}, larger than the padded "
                f"input {self.size[0]}x{self.size[1]}: raise input.size, or set input.fit=resize"
            )
        geometry, frame = (resize_to if self.fit == "resize" else pad_to)(sample.size, self.size)
        return Sample(geometry.image(sample.image), sample.targets, sample.id), frame

    def __len__(self) -> int:
        return len(self.dataset)


class EpochSampler(Sampler[Draw]):
    """A fresh shuffle an epoch, from (seed, epoch) alone; can start inside the epoch.

    Chunks are shuffled, and then, `MIXED` neighbours at a time, the images in them. Of N ranks each
    takes every Nth draw, so that what they take makes up the same batches.
    """

    def __init__(self, length: int, seed: int, chunks: Sequence[int] = ()) -> None:
        self.length, self.seed, self.chunks = length, seed, chunks
        self.epoch = 0
        self.skip = 0

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = self._by_chunks(rng) if self.chunks else rng.permutation(self.length)
        for index in order[self.skip + rank() :: world_size()]:
            yield self.epoch, int(index)

    def _by_chunks(self, rng: np.random.Generator) -> NDArray[np.int64]:
        chunks = np.split(np.arange(self.length), np.cumsum(self.chunks)[:-1])
        shuffled = [chunks[index] for index in rng.permutation(len(chunks))]
        groups = [shuffled[start : start + MIXED] for start in range(0, len(shuffled), MIXED)]
        return np.concatenate([rng.permutation(np.concatenate(group)) for group in groups])

    def __len__(self) -> int:
        return len(range(self.skip + rank(), self.length, world_size()))


class Collate:
    """Samples -> Batch; tasks without a label become all void."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks

    def __call__(self, items: Sequence[tuple[Sample, Frame]]) -> Batch:
        """B samples with images of one size -> a batch; smaller labels sit in the top left."""
        samples = [sample for sample, _ in items]
        frames = [frame for _, frame in items]
        size = max(f.size[0] for f in frames), max(f.size[1] for f in frames)
        image = torch.from_numpy(np.stack([sample.image for sample in samples]))
        targets = {}
        for task in self.tasks:
            labels = [_fill(self.label(task, sample), task, size) for sample in samples]
            targets[task.name] = to_tensor(np.stack(labels))
        ids = [sample.id for sample in samples]
        return Batch(image.permute(0, 3, 1, 2), targets, ids, frames)

    def label(self, task: Task, sample: Sample) -> NDArray[np.generic] | None:
        """As `TrainView` left it, which has looked at it."""
        return sample.targets.get(task.name)


class EvalCollate(Collate):
    """Likewise of samples whose labels nobody has looked at yet."""

    def label(self, task: Task, sample: Sample) -> NDArray[np.generic] | None:
        """As it came from the dataset, if it is one of such a task."""
        return _label(task, sample)


def _label(task: Task, sample: Sample) -> NDArray[np.generic] | None:
    """A task's label, if the sample has one.

    Raises:
        DataError: it is no label of such a task.
    """
    label = sample.targets.get(task.name)
    misfit = "" if label is None else task.misfit(label)
    if misfit:
        raise DataError(
            f"image {sample.id}: the label of {task.name!r} {misfit}: change the task's kind or"
            " options to suit the data"
        )
    return label


def _fill(label: NDArray[np.generic] | None, task: Task, size: Size) -> NDArray[np.generic]:
    """A label in the top left of a map of void, or as it is where it has the size."""
    if label is not None and label.shape[:2] == size:
        return label
    canvas = task.void(size)
    if label is not None:
        canvas[: label.shape[0], : label.shape[1]] = label
    return canvas


def to_tensor(labels: np.ndarray[Any, Any]) -> Tensor:
    """BxHxW uint8 stays; BxHxW float -> Bx1xHxW; BxHxWxC -> BxCxHxW, in memory as before."""
    tensor = torch.from_numpy(labels)
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor.unsqueeze(1) if tensor.is_floating_point() else tensor


def train_loader(
    view: TrainView, batch_size: int, workers: int, pin_memory: bool = False
) -> Loader[Batch]:
    """Shuffled batches of one size, or a rank's share of them; the last, smaller one is left out.

    Raises:
        DataError: fewer images than one batch, which would train nothing.
        ConfigError: ranks cannot share a batch alike.
    """
    if len(view) < batch_size:
        raise DataError(
            f"{len(view)} training images do not fill one batch of {batch_size}: "
            f"lower loader.batch_size or add images"
        )
    return Loader(
        view,
        Collate(view.tasks),
        batch_size=share(batch_size),
        sampler=EpochSampler(len(view), view.seed, view.dataset.chunks),
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )


def eval_loader(
    view: EvalView, tasks: Sequence[Task], batch_size: int, workers: int, pin_memory: bool = False
) -> Loader[Batch]:
    """Every image exactly once, in order; of N ranks each takes every Nth image."""
    return Loader(
        view,
        EvalCollate(tasks),
        batch_size=batch_size,
        sampler=range(rank(), len(view), world_size()),
        num_workers=workers,
        pin_memory=pin_memory,
    )
