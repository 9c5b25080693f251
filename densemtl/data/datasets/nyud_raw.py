"""Readers of the official files of NYUD-v2, `nyu_depth_v2_labeled.mat` (HDF5) and `splits.mat`.

Sources: Silberman et al., ECCV 2012 (dataset, 894 labels); Gupta et al., CVPR 2013 (40 classes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.nyud_metadata import VALID_CROP_BOX
from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.io.array_files import open_datasets

REQUIRED_VARIABLES = ("images", "depths", "labels", "instances")


@dataclass(frozen=True)
class RawFrame:
    """One labeled image.

    Attributes:
        image: uint8 RGB, shape (H, W, 3).
        class_ids: uint8 classes 1..40, 0 where unlabeled, shape (H, W).
        regions: int32 ids, one per object, shape (H, W).
        depth: float32 depth in meters, with holes filled by the authors, shape (H, W).
    """

    image: NDArray[np.uint8]
    class_ids: NDArray[np.uint8]
    regions: NDArray[np.int32]
    depth: NDArray[np.float32]


class NYUDRawFile:
    """Sequence of the images of nyu_depth_v2_labeled.mat, which are read on demand.

    Args:
        file: path of nyu_depth_v2_labeled.mat.
        crop: crop to the 425x560 pixels that are valid in both cameras.

    Raises:
        DataError: if the file is another one or truncated.
    """

    def __init__(self, file: Path, *, crop: bool = True) -> None:
        import h5py

        try:
            self._arrays = open_datasets(h5py.File(file, "r"), file)
        except OSError as error:
            reason = str(error).partition("(")[0].strip() or "no HDF5"
            raise DataError(f"{file}: {reason}; download nyu_depth_v2_labeled.mat again") from error
        missing = [name for name in REQUIRED_VARIABLES if name not in self._arrays]
        if missing:
            raise DataError(
                f"{file}: no {missing[0]!r} in this file; give nyu_depth_v2_labeled.mat"
            )
        self._file = file
        top, left, height, width = VALID_CROP_BOX
        self._crop_slices = (
            (slice(top, top + height), slice(left, left + width)) if crop else (slice(None),) * 2
        )

    def __len__(self) -> int:
        return int(self._arrays["depths"].shape[0])

    def __getitem__(self, index: int) -> RawFrame:
        """Read one image.

        Args:
            index: number of the image, from 0.

        Returns:
            The image and its labels.

        Raises:
            DataError: if the file is truncated or has an unknown label.
        """
        labels = self._read_array("labels", index)
        if labels.max() >= len(LABEL_TO_CLASS):
            unknown = f"image {index + 1} has label {labels.max()}"
            raise DataError(
                f"{self._file}: {unknown}, but labels are 0..{len(LABEL_TO_CLASS) - 1}; download it"
                " again"
            )
        regions = labels.astype(np.int32) * 256 + self._read_array("instances", index)
        depth = self._read_array("depths", index).astype(np.float32)
        return RawFrame(self._read_array("images", index), LABEL_TO_CLASS[labels], regions, depth)

    def _read_array(self, name: str, index: int) -> NDArray[Any]:
        """Read an array and reverse its axes, since MATLAB stores columns first."""
        try:
            stored = self._arrays[name][index]
        except OSError as error:
            raise DataError(f"{self._file}: truncated; download it again") from error
        return np.ascontiguousarray(np.transpose(stored)[self._crop_slices])


def read_splits(file: Path) -> dict[str, list[int]]:
    """Read the official splits.

    Args:
        file: path of splits.mat.

    Returns:
        {"train": numbers, "val": numbers} of the images, from 1; "val" is the authors' test split.

    Raises:
        DataError: if the file is another one or cannot be read.
    """
    splits = {"train": "trainNdxs", "val": "testNdxs"}
    values = arrays.read_mat(file)
    missing = [name for name in splits.values() if name not in values]
    if missing:
        raise DataError(f"{file}: no {missing[0]!r} in this file; give splits.mat of NYUD-v2")
    return {split: sorted(np.ravel(values[name]).tolist()) for split, name in splits.items()}


_LABEL_TO_CLASS_TEXT = """
    40 40 3 22 5 40 12 38 40 40 2 39 40 40 26 40 24 40 7 40 1 40 40 34 38 29 40 8 40 40 40 40 38
    40 40 14 40 38 40 40 40 15 39 40 30 40 40 39 40 39 38 40 38 40 37 40 38 38 9 40 40 38 40 11 38
    40 40 40 40 40 40 40 40 40 40 40 40 40 38 13 40 40 6 40 23 40 39 10 16 40 40 40 40 38 40 40 40
    40 40 40 40 40 40 38 40 39 40 40 40 40 39 38 40 40 40 40 40 40 18 40 40 19 28 33 40 40 40 40
    40 40 40 40 40 38 27 36 40 40 40 40 21 40 20 35 40 40 40 40 40 40 40 40 38 40 40 40 4 32 40 40
    39 40 39 40 40 40 40 40 17 40 40 25 40 39 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 39 38 38 40 40 39 40 39 40
    38 39 38 40 40 40 40 40 40 40 40 40 40 39 40 38 40 40 38 38 40 40 40 40 40 40 40 40 40 40 40
    40 40 38 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40
    40 40 40 40 40 40 39 40 40 40 38 40 40 39 40 40 38 40 40 40 40 40 40 40 40 40 40 40 39 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 31 40 40 40 40 40 40 40 38 40 40 38 39 39 40 40
    40 40 40 40 40 40 40 38 40 39 40 40 39 40 40 40 38 40 40 40 40 40 40 40 40 38 39 40 40 40 40
    40 40 38 40 40 40 40 40 40 40 40 40 40 40 38 39 40 40 40 40 40 40 40 39 40 40 40 40 40 40 38
    40 40 40 38 40 39 40 40 40 39 39 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40
    40 40 40 39 39 40 40 39 39 40 40 40 40 38 40 40 38 39 39 40 39 40 39 38 40 40 40 40 40 40 40
    40 40 40 40 39 40 38 40 39 40 40 40 40 40 39 39 40 40 40 40 40 40 39 39 40 40 38 39 39 40 40
    40 40 40 40 40 40 40 39 39 40 40 40 40 39 40 40 40 40 40 39 40 40 39 40 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 39 38 40 40 40 40 40 40 40 39 38 39 40 38 39 40 39 40 39 40 40 40 40 40
    40 40 40 38 40 40 40 40 40 38 40 40 39 40 40 40 39 40 38 40 40 40 40 40 40 40 40 38 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 39 38 40 40 38 40 40 38 40 40 40 40 40 40 40 40 40 39
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 38 40 40 40 40 40 40 40 40 40 40 40
    38 38 38 40 40 40 38 40 40 40 38 38 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40
    40 40 40 40 40 40 40 40 40 40 40 40 38 40 38 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 39 40 40 40 40 38 38 40 40
    40 38 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 39 40 40 39 39 40 40 40 40 40 40 40
    40 39 39 39 40 40 40 40 39 40 40 40 40 40 40 40 40 39 40 40 40 40 40 39 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 38 40 40 40 40 40 40 40 39 40 40 38 40 39 40 40 40 40 38 40 40 40 40 40
    38 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 39 40 40
"""

LABEL_TO_CLASS = np.array([0, *map(int, _LABEL_TO_CLASS_TEXT.split())], np.uint8)
"""Class 1..40 of each label 1..894; label 0 is unlabeled."""
