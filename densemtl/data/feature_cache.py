"""Cache of the features of a frozen backbone on disk, with the labels that belong to them.

One file holds one view of one image: the maps of all levels, the transformed labels and a checksum.
Files are mapped into memory and written atomically, like those of `disk_cache`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from densemtl.data.base import DenseDataset
from densemtl.data.record_files import load_record, save_record
from densemtl.data.samplers import EpochIndex
from densemtl.errors import DataError
from densemtl.types import Batch, CachedFeatures, ImagePlacement, Sample, Size

_MAP_PREFIX, _TARGET_PREFIX = "map ", "target "
_PLACEMENT, _IMAGE, _CHECKSUM = "placement", "image", "crc32"

ViewIndex = tuple[int, int]
"""Pair (number of the view, index into the dataset)."""

Item = tuple[Sample, ImagePlacement]
"""Sample as it is batched, and its placement."""


@dataclass(frozen=True)
class FeatureRecord:
    """Features and labels of one view of one image.

    Attributes:
        maps: maps (C_l, H_l, W_l) of the levels, finest first.
        targets: {task: label map}, as it is batched.
        placement: position of the original image in the input.
        image: the transformed image (H, W, C) if a loss needs it, otherwise None.
    """

    maps: Sequence[Tensor]
    targets: Mapping[str, NDArray[np.generic]]
    placement: ImagePlacement
    image: NDArray[np.uint8] | None = None


class FeatureStore:
    """Files of the features of a split.

    Args:
        folder: folder for this split, these weights and these transforms, and nothing else.
        dataset: the split, whose changed files make features invalid.
    """

    def __init__(self, folder: Path, dataset: DenseDataset) -> None:
        self.folder, self.dataset = folder, dataset

    def get_file(self, key: ViewIndex) -> Path:
        """Return the file of a view.

        Args:
            key: (view, index).

        Returns:
            Path of the file, which may be absent.
        """
        view, index = key
        return self.folder / f"view_{view:04d}" / f"{index:07d}.npy"

    def contains(self, key: ViewIndex) -> bool:
        """Return whether a view is cached; its checksum is verified only when it is loaded.

        Args:
            key: (view, index).

        Returns:
            True if the file is complete and its image has not changed.
        """
        return self._load_arrays(key) is not None

    def save(self, key: ViewIndex, record: FeatureRecord) -> None:
        """Write a view.

        Args:
            key: (view, index).
            record: its features and labels.

        Raises:
            OutputError: if the file cannot be written.
        """
        arrays = {
            f"{_MAP_PREFIX}{level} {str(each.dtype).removeprefix('torch.')}": _to_numpy(each)
            for level, each in enumerate(record.maps)
        }
        arrays |= {_TARGET_PREFIX + task: target for task, target in record.targets.items()}
        arrays[_PLACEMENT] = np.array([*record.placement.size, *record.placement.box], np.int64)
        if record.image is not None:
            arrays[_IMAGE] = record.image
        arrays[_CHECKSUM] = np.array(_compute_checksum(arrays), np.int64)
        save_record(self.get_file(key), self.dataset.get_sample_version(key[1]), arrays)

    def load(self, key: ViewIndex) -> FeatureRecord:
        """Read a view.

        Args:
            key: (view, index).

        Returns:
            Its features and labels.

        Raises:
            DataError: if the file is missing, corrupt or outdated; it is then removed.
        """
        arrays = self._load_arrays(key)
        if arrays is None or int(arrays.pop(_CHECKSUM)) != _compute_checksum(arrays):
            self.get_file(key).unlink(missing_ok=True)
            raise DataError(
                f"{self.get_file(key)}: the cached features are missing, corrupt or outdated: run"
                " the same command again, which computes them and resumes"
            )
        height, width, *box = (int(value) for value in arrays.pop(_PLACEMENT))
        top, left, box_height, box_width = box
        return FeatureRecord(
            [_to_tensor(key, each) for key, each in arrays.items() if key.startswith(_MAP_PREFIX)],
            {
                key.removeprefix(_TARGET_PREFIX): each
                for key, each in arrays.items()
                if key.startswith(_TARGET_PREFIX)
            },
            ImagePlacement((height, width), (top, left, box_height, box_width)),
            arrays.get(_IMAGE),
        )

    def _load_arrays(self, key: ViewIndex) -> dict[str, NDArray[Any]] | None:
        return load_record(self.get_file(key), self.dataset.get_sample_version(key[1]))


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    same_size = torch.int16 if tensor.dtype == torch.bfloat16 else tensor.dtype  # not in numpy
    array: NDArray[Any] = tensor.contiguous().view(same_size).numpy()
    return array


def _to_tensor(name: str, array: NDArray[Any]) -> Tensor:
    dtype: torch.dtype = getattr(torch, name.rpartition(" ")[2])
    return torch.from_numpy(array).view(dtype)


def _compute_checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    checksum = 0
    for array in arrays.values():
        checksum = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, checksum)
    return checksum


class FeatureDataset(Dataset[tuple[Item, Sequence[Tensor]]]):
    """Dataset of cached views.

    Args:
        store: the cached features.
        num_views: number of views, which the epochs repeat in turn.
    """

    def __init__(self, store: FeatureStore, num_views: int) -> None:
        self._store, self._num_views = store, num_views

    def __getitem__(self, key: int | EpochIndex) -> tuple[Item, Sequence[Tensor]]:
        """Read the features of an image.

        Args:
            key: index into the split, or (epoch, index).

        Returns:
            The sample, whose image is empty unless it is cached as well, its placement, and its
            features.

        Raises:
            DataError: if the file is missing, corrupt or outdated.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        record = self._store.load((epoch % self._num_views, index))
        image = np.empty((0, 0, 3), np.uint8) if record.image is None else record.image
        sample = Sample(image, dict(record.targets), self._store.dataset.ids[index])
        return (sample, record.placement), record.maps

    def __len__(self) -> int:
        return len(self._store.dataset)


class FeatureCollate:
    """Collate function of batches with cached features.

    Args:
        collate: collate function of batches with images.
        image_size: (height, width) of the input of the model.
    """

    def __init__(self, collate: Callable[[Any], Batch], image_size: Size) -> None:
        self._collate, self._image_size = collate, image_size

    def __call__(self, items: Sequence[tuple[Item, Sequence[Tensor]]]) -> Batch:
        """Join samples to a batch.

        Args:
            items: B items of `FeatureDataset`.

        Returns:
            The batch, whose images are empty unless they are cached as well.
        """
        batch = self._collate([item for item, _ in items])
        maps = tuple(torch.stack(level) for level in zip(*(m for _, m in items), strict=True))
        return replace(batch, features=CachedFeatures(maps, self._image_size))
