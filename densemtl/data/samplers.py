"""Samplers of the order of training images, which can start in the middle of an epoch.

The order depends on the seed and the epoch only, so that a resumed run sees the same images. Each
of N ranks takes every N-th image, so that together they get the batches of one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from densemtl.data.base import DenseDataset
from densemtl.data.mixture import Mixture
from densemtl.distributed.collectives import get_rank, get_world_size

SHUFFLE_BUFFER_SHARDS = 8
"""Number of shards whose images are shuffled together."""

MIXTURE_STREAM = 1
"""Last number of the seeds of a mixture, which keeps them apart from those of augmentation."""

EpochIndex = tuple[int, int]
"""Pair (epoch, index into the dataset)."""


class EpochSampler(Sampler[EpochIndex]):
    """Sampler of a new random order per epoch.

    If the dataset has shards, the shards are shuffled, and then the images within each group of
    `SHUFFLE_BUFFER_SHARDS` consecutive shards.

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
        epochs, indices = self.draw_epoch()
        mine = slice(self.start_index + get_rank(), None, get_world_size())
        yield from zip(epochs[mine].tolist(), indices[mine].tolist(), strict=True)

    def draw_epoch(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the images of the current epoch on all ranks.

        Returns:
            The epochs that seed the augmentation of each image, and the indices of the images, both
            of shape (length,).
        """
        rng = np.random.default_rng((self.seed, self.epoch))
        return np.full(self.length, self.epoch), shuffle(self.length, self.shard_sizes, rng)

    def __len__(self) -> int:
        return len(range(self.start_index + get_rank(), self.length, get_world_size()))


class MixedSampler(EpochSampler):
    """Sampler of several sets, each of which has the same share of every epoch.

    The images of a set are visited in random orders, one after the other, across epochs: no image
    is visited for the (n + 1)-th time before all others were visited n times. The epoch that seeds
    the augmentation of an image is the number of its earlier visits, so that an image that is
    visited several times in an epoch looks different each time. With weights that are proportional
    to the sizes, every image is visited once per epoch.

    Args:
        mixture: sizes and weights of the sets.
        seed: seed of the orders.
        batch_size: number of images per batch on all ranks, if each batch is of one set.

    Raises:
        ConfigError: if a set would have no image in an epoch.
    """

    def __init__(self, mixture: Mixture, seed: int, batch_size: int) -> None:
        self.mixture = mixture
        self.group_size = batch_size if mixture.one_set_per_batch else 1
        self.groups_per_set = mixture.share_out(mixture.epoch_images // self.group_size)
        super().__init__(sum(self.groups_per_set) * self.group_size, seed)

    def draw_epoch(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the images of the current epoch on all ranks.

        Returns:
            The number of earlier visits of each image, and the indices of the images, both of shape
            (length,).
        """
        rng = np.random.default_rng((self.seed, self.epoch))
        groups = np.repeat(np.arange(len(self.groups_per_set)), self.groups_per_set)
        set_numbers = np.repeat(rng.permutation(groups), self.group_size)
        visits = np.zeros(self.length, np.int64)
        indices = np.zeros(self.length, np.int64)
        for number, start in enumerate(self.mixture.starts):
            places = np.flatnonzero(set_numbers == number)
            visits[places], indices[places] = self._visit(number, len(places))
            indices[places] += start
        return visits, indices

    def _visit(self, number: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the earlier visits and the images of one set in the current epoch."""
        size = self.mixture.sizes[number]
        visits, places = np.divmod(self.epoch * count + np.arange(count), size)
        indices = np.zeros(count, np.int64)
        for visit in np.unique(visits).tolist():
            rng = np.random.default_rng((self.seed, visit, number, MIXTURE_STREAM))
            order = shuffle(size, self.mixture.shard_sizes[number], rng)
            indices[visits == visit] = order[places[visits == visit]]
        return visits, indices


def shuffle(length: int, shard_sizes: Sequence[int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Shuffle images, or shards and then the images of consecutive shards.

    Args:
        length: number of images.
        shard_sizes: number of images in each shard; empty without shards.
        rng: generator of the order.

    Returns:
        The indices of all images in random order.
    """
    if not shard_sizes:
        return rng.permutation(length)
    shards = np.split(np.arange(length), np.cumsum(shard_sizes)[:-1])
    shuffled = [shards[index] for index in rng.permutation(len(shards))]
    groups = [
        shuffled[start : start + SHUFFLE_BUFFER_SHARDS]
        for start in range(0, len(shuffled), SHUFFLE_BUFFER_SHARDS)
    ]
    return np.concatenate([rng.permutation(np.concatenate(group)) for group in groups])


def make_epoch_sampler(dataset: DenseDataset, seed: int, batch_size: int) -> EpochSampler:
    """Create the sampler of a training split.

    Args:
        dataset: training split.
        seed: seed of the orders.
        batch_size: number of images per batch on all ranks.

    Returns:
        A sampler of the mixture of the dataset, or of all its images.
    """
    if dataset.mixture is not None:
        return MixedSampler(dataset.mixture, seed, batch_size)
    return EpochSampler(len(dataset), seed, dataset.shard_sizes)
