"""Base class of all datasets."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from densemtl.config.sections import AugmentConfig
from densemtl.data.mixture import Mixture
from densemtl.types import ImageFormat, Sample, Split

UNREADABLE = "cannot be read"
"""Reason for which files are left out that were meant to be used."""


class DenseDataset(ABC):
    """Base class of a split of a dataset.

    Samples are numbered from 0 and read on demand. The constructor of a subclass takes `split`,
    `tasks` and keyword-only options, sets `ids`, and implements `task_defaults` and `__getitem__`.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read; files of other labels are not opened.

    Attributes:
        ids: name of each image, in order.
        shard_sizes: number of images in each shard, in order; training reads shard after shard.
            Empty if all images can be read at the same cost in any order.
        left_out: {reason: number of files that were found but belong to no sample}.
        missing_labels: {task: a line, already printed, about the images that have no label of it},
            if that is not usual for the dataset.
        mixture: sets that training draws from; None if every image is drawn once per epoch.
        task_sets: {task: sets that have labels for it}, if the images are from several sets; the
            id of an image then begins with the name of its set and a slash.
        is_generated: whether samples are computed and not read from files, so that none is corrupt.

    Example:
        >>> import numpy as np
        >>> from densemtl.types import Sample
        >>> class Squares(DenseDataset):
        ...     ids = ("small", "large")
        ...
        ...     @classmethod
        ...     def task_defaults(cls, **options):
        ...         return {"semseg": {"class_names": ["background", "square"]}}
        ...
        ...     def __getitem__(self, index):
        ...         semseg = np.zeros((16, 16), np.uint8)
        ...         semseg[: 4 * index + 4, : 4 * index + 4] = 1
        ...         image = np.repeat(semseg[..., None] * np.uint8(255), 3, axis=2)
        ...         return Sample(image, {"semseg": semseg}, self.ids[index])
        >>> dataset = Squares("train", ["semseg"])
        >>> len(dataset), dataset[1].size
        (2, (16, 16))
    """

    ids: Sequence[str]
    shard_sizes: Sequence[int] = ()
    left_out: Mapping[str, int] = MappingProxyType({})
    missing_labels: Mapping[str, str] = MappingProxyType({})
    mixture: Mixture | None = None
    task_sets: Mapping[str, Sequence[str]] = MappingProxyType({})
    is_generated: ClassVar[bool] = False

    def __init__(self, split: Split, tasks: Sequence[str]) -> None:
        self.split = split
        self.tasks = tuple(tasks)

    @classmethod
    @abstractmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Return the tasks that the dataset has labels for, with their default options.

        No label is read, so that the configuration can be validated before the data is there.

        Args:
            **options: the options of the dataset, without `split` and `tasks`.

        Returns:
            {task name: {option: default value}}, for example the class names.
        """

    @classmethod
    def image_format(cls, **options: Any) -> ImageFormat:
        """Return the channels of the images; no file is read.

        Args:
            **options: the options of the dataset, without `split` and `tasks`.

        Returns:
            8-bit RGB unless a subclass returns something else.

        Raises:
            ConfigError: if options contradict each other.
        """
        return ImageFormat()

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Args:
            index: position in `ids`.

        Returns:
            The image and the labels of `tasks`; a task without a label for this image is absent.

        Raises:
            DataError: if a file is missing or corrupt, or a label has a wrong size or value; the
                message names the file.
        """

    def __len__(self) -> int:
        return len(self.ids)

    def adapt_augment(self, shared: AugmentConfig) -> list[AugmentConfig]:
        """Return the augmentation of each set of `mixture`.

        Args:
            shared: the section `augment` of the configuration.

        Returns:
            One section per set; `shared` alone if there is a single set.
        """
        return [shared]

    def fingerprint(self) -> str:
        """Return a hash that identifies the evaluated images.

        Results are compared only if their fingerprints are equal.

        Returns:
            12 hexadecimal digits, which depend on the class, the split and the image ids in order.
        """
        text = "\n".join([type(self).__name__, self.split, *self.ids])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def get_sample_version(self, index: int) -> str:
        """Return a string that changes when the files of a sample change.

        Caches on disk compare it to detect stale entries.

        Args:
            index: position in `ids`.

        Returns:
            At most 64 ASCII characters; always "" for datasets that read no files.
        """
        return ""
