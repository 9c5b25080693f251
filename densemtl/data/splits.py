"""Datasets of both splits of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from densemtl.data.base import DenseDataset
from densemtl.data.datasets.mixed import MixedDataset


@dataclass(frozen=True)
class Splits:
    """Datasets of both splits.

    Attributes:
        train: training split.
        val: validation split.
    """

    train: DenseDataset
    val: DenseDataset

    def select_tasks(self, tasks: Sequence[str]) -> Splits:
        """Return the splits without the sets of a mixture that have no labels of some tasks.

        Args:
            tasks: names of some of the tasks.

        Returns:
            Splits that share their samples with these.
        """
        splits = (self.train, self.val)
        return Splits(
            *(
                each.select_tasks(tasks) if isinstance(each, MixedDataset) else each
                for each in splits
            )
        )

    def count_set_images(self) -> dict[str, dict[str, int]]:
        """Count the images of each set of a mixture.

        Returns:
            {set: {split: number of images}}; empty if the images are from a single dataset.
        """
        counts: dict[str, dict[str, int]] = {}
        for split in (self.train, self.val):
            if isinstance(split, MixedDataset):
                for name, part in split.parts.items():
                    counts.setdefault(name, {})[split.split] = len(part)
        return counts
