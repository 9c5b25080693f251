"""Shares of several datasets in the images of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densemtl.errors import ConfigError


@dataclass(frozen=True)
class Mixture:
    """Sets of images that training draws from with given weights.

    Attributes:
        names: names of the sets.
        sizes: number of images in each set.
        weights: weight of each set; only the ratios matter.
        shard_sizes: number of images in each shard of each set; empty for sets without shards.
        epoch_images: number of images per epoch.
        one_set_per_batch: whether all images of a batch are from one set.
    """

    names: Sequence[str]
    sizes: Sequence[int]
    weights: Sequence[float]
    shard_sizes: Sequence[Sequence[int]]
    epoch_images: int
    one_set_per_batch: bool = False

    @property
    def starts(self) -> list[int]:
        """Index of the first image of each set in the joint dataset."""
        return [0, *np.cumsum(self.sizes).tolist()[:-1]]

    def share_out(self, count: int) -> list[int]:
        """Divide a number of images or batches among the sets in proportion to their weights.

        Fractions are rounded such that the sum is exact (largest remainders).

        Args:
            count: number of images, or of batches that each are of one set.

        Returns:
            The number for each set.

        Raises:
            ConfigError: if a set would get none.

        Example:
            >>> Mixture(("a", "b"), (100, 50), (2, 1), ((), ()), 150).share_out(8)
            [5, 3]
        """
        exact = count * np.asarray(self.weights, np.float64) / sum(self.weights)
        shares = np.floor(exact).astype(int)
        most_missing = np.argsort(shares - exact, kind="stable")
        shares[most_missing[: count - int(shares.sum())]] += 1
        if not shares.all():
            name = self.names[int(np.argmin(shares))]
            raise ConfigError(
                f"data.weights: an epoch of {self.epoch_images} images would have none of {name!r};"
                " raise its weight or data.epoch_images, or remove the set"
            )
        return [int(share) for share in shares]
