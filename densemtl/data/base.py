"""What every dataset is: numbered samples, read on demand, with only the labels asked for."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from densemtl.types import Sample, Split


class DenseDataset(ABC):
    """A split of a dataset. Subclasses take `split`, `tasks` and keyword-only options.

    Attributes:
        split: "train" or "val".
        tasks: names of the labels to read; no others are touched.
        ids: the name of each image, in order.
        shard_sizes: numbers of images that are stored together, in order; training reads them one
            after the other. Empty where any image is read as fast as any other.
    """

    ids: Sequence[str]
    shard_sizes: Sequence[int] = ()

    def __init__(self, split: Split, tasks: Sequence[str]) -> None:
        self.split = split
        self.tasks = tuple(tasks)

    @classmethod
    @abstractmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """{task name: default options of that task here}, such as its class names.

        A pure statement: reads no label and needs no data on disk (a folder dataset reads its
        description from `options`).
        """

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DataError: a file is missing, corrupt, of another size or out of range; names it.
        """

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """A short hash of what is scored: dataset, split and image ids, in order."""
        text = "\n".join([type(self).__name__, self.split, *self.ids])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def get_sample_version(self, index: int) -> str:
        """Changes when what a sample is read from changes; at most 64 ASCII characters.

        The same throughout for datasets that are read from no files.
        """
        return ""
