"""Labels that trained models predicted for images without a label of a task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.config.sections import AugmentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.record_files import load_record, save_record
from densemtl.errors import DataError
from densemtl.types import Sample, Size

MAX_ROUNDING = 1e-3
"""Largest relative error by which values are rounded to two bytes."""

_LABEL_PREFIX, _SHARE_PREFIX = "label ", "share "


class TeacherLabelStore:
    """Files of the labels that one model predicted, one file per image of a split.

    A file contains the labels of the tasks that the image has no label of; it exists even if there
    are none, so that the image is not read again. Values are rounded to two bytes if the relative
    error is small, and labels may be smaller than their image.

    Args:
        folder: folder for this split and this model, and nothing else.
        dataset: the split, whose changed files make labels invalid.
    """

    def __init__(self, folder: Path, dataset: DenseDataset) -> None:
        self.folder, self._dataset = folder, dataset

    def contains(self, index: int) -> bool:
        """Return whether the labels of an image are stored and up to date.

        Args:
            index: position in `ids` of the dataset.

        Returns:
            True if they are.
        """
        return self._load_arrays(index) is not None

    def save(
        self,
        index: int,
        labels: Mapping[str, NDArray[np.generic]],
        shares: Mapping[str, float],
    ) -> None:
        """Write the predicted labels of an image.

        Args:
            index: position in `ids` of the dataset.
            labels: {task: label map in the layout of `Sample`}, of any size.
            shares: {task: share of valid pixels}.

        Raises:
            OutputError: if the file cannot be written.
        """
        arrays = {_LABEL_PREFIX + task: _round_to_half(label) for task, label in labels.items()}
        arrays |= {_SHARE_PREFIX + task: np.array(share) for task, share in shares.items()}
        save_record(self._get_file(index), self._dataset.get_sample_version(index), arrays)

    def load(self, index: int, size: Size) -> dict[str, NDArray[np.generic]]:
        """Read the predicted labels of an image.

        Args:
            index: position in `ids` of the dataset.
            size: (height, width) of the image.

        Returns:
            {task: label map} for the tasks that the image has no label of.

        Raises:
            DataError: if the file is missing, corrupt or outdated.
        """
        arrays = self._require_arrays(index)
        return {
            name.removeprefix(_LABEL_PREFIX): _restore(label, size)
            for name, label in arrays.items()
            if name.startswith(_LABEL_PREFIX)
        }

    def load_shares(self, index: int) -> dict[str, float]:
        """Read the shares of valid pixels of the predicted labels of an image.

        Args:
            index: position in `ids` of the dataset.

        Returns:
            {task: share} for the tasks that the image has no label of.

        Raises:
            DataError: if the file is missing, corrupt or outdated.
        """
        return {
            name.removeprefix(_SHARE_PREFIX): float(share)
            for name, share in self._require_arrays(index).items()
            if name.startswith(_SHARE_PREFIX)
        }

    def _require_arrays(self, index: int) -> dict[str, NDArray[Any]]:
        arrays = self._load_arrays(index)
        if arrays is None:
            raise DataError(
                f"{self._get_file(index)}: the labels of a teacher are missing, corrupt or"
                " outdated: run the same command again, which computes them and resumes"
            )
        return arrays

    def _load_arrays(self, index: int) -> dict[str, NDArray[Any]] | None:
        return load_record(self._get_file(index), self._dataset.get_sample_version(index))

    def _get_file(self, index: int) -> Path:
        return self.folder / f"{index:07d}.npy"


class FilledDataset(DenseDataset):
    """Training split whose missing labels are those that teachers predicted.

    Labels of the dataset are never changed.

    Args:
        dataset: the split.
        stores: the labels of each teacher, complete.
    """

    def __init__(self, dataset: DenseDataset, stores: Sequence[TeacherLabelStore]) -> None:
        super().__init__(dataset.split, dataset.tasks)
        self.ids, self.shard_sizes = dataset.ids, dataset.shard_sizes
        self.left_out, self.missing_labels = dataset.left_out, dataset.missing_labels
        self.mixture, self.task_sets = dataset.mixture, dataset.task_sets
        self._dataset, self._stores = dataset, stores

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Raise an error, since the tasks are those of the filled dataset."""
        raise NotImplementedError("call task_defaults of the class of the filled dataset")

    def __getitem__(self, index: int) -> Sample:
        """Read a sample, and add the predicted labels of the tasks that it has no label of.

        Args:
            index: position in `ids`.

        Returns:
            The sample.

        Raises:
            DataError: if the sample cannot be read, or the predicted labels are missing.
        """
        sample = self._dataset[index]
        targets: dict[str, NDArray[np.generic]] = {}
        for store in self._stores:
            targets |= store.load(index, sample.size)
        return Sample(sample.image, {**targets, **sample.targets}, sample.id)

    def adapt_augment(self, shared: AugmentConfig) -> list[AugmentConfig]:
        """Return the augmentation of each set of the filled dataset."""
        return self._dataset.adapt_augment(shared)

    def get_sample_version(self, index: int) -> str:
        """Return the version of a sample of the filled dataset."""
        return self._dataset.get_sample_version(index)

    def fingerprint(self) -> str:
        """Return a hash that identifies the images and the predicted labels."""
        terms = [self._dataset.fingerprint(), *(store.folder.name for store in self._stores)]
        return hashlib.sha256("\n".join(terms).encode()).hexdigest()[:12]


def _round_to_half(label: NDArray[np.generic]) -> NDArray[np.generic]:
    """Round floats to two bytes, unless a value changes by more than `MAX_ROUNDING`."""
    if label.dtype != np.float32:
        return label
    with np.errstate(over="ignore"):
        rounded = label.astype(np.float16)
    is_close = np.isclose(rounded, label, rtol=MAX_ROUNDING, atol=1e-6, equal_nan=True)
    return rounded if is_close.all() else label


def _restore(label: NDArray[np.generic], size: Size) -> NDArray[np.generic]:
    """Resize a label by nearest neighbor, and restore its type."""
    if label.shape[:2] != size:
        rows, columns = (
            ((np.arange(length) + 0.5) * stored / length).astype(np.intp)
            for length, stored in zip(size, label.shape[:2], strict=True)
        )
        label = label.take(columns, axis=1).take(rows, axis=0)
    return label.astype(np.float32) if label.dtype == np.float16 else label
