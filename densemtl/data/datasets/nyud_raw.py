"""The official labelled set of NYUD-v2, `nyu_depth_v2_labeled.mat` (HDF5) and `splits.mat`.

Source: Silberman et al., ECCV 2012; its 894 labels in 40 classes: Gupta et al., CVPR 2013.
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

REQUIRED_VARIABLES = ("images", "depths", "labels", "instances")


@dataclass(frozen=True)
class RawFrame:
    """One labelled frame.

    Attributes:
        image: HxWx3 uint8 RGB.
        class_ids: HxW uint8, 0 unlabelled, 1..40.
        regions: HxW int32, one id an object.
        depth: HxW float32 metres, holes filled in by the authors.
    """

    image: NDArray[np.uint8]
    class_ids: NDArray[np.uint8]
    regions: NDArray[np.int32]
    depth: NDArray[np.float32]


class NYUDRawFile:
    """The frames of the file, read one at a time.

    Args:
        file: nyu_depth_v2_labeled.mat.
        crop: cut to the 425x560 pixels that are valid in both cameras.

    Raises:
        DataError: not that file, or truncated.
    """

    def __init__(self, file: Path, *, crop: bool = True) -> None:
        import h5py

        try:
            self._arrays: dict[str, Any] = dict(h5py.File(file, "r"))
        except OSError as error:
            reason = str(error).partition("(")[0].strip() or "no HDF5"
            raise DataError(f"{file}: {reason}; fetch nyu_depth_v2_labeled.mat again") from error
        missing = [name for name in REQUIRED_VARIABLES if name not in self._arrays]
        if missing:
            raise DataError(f"{file}: holds no {missing[0]!r}; is it nyu_depth_v2_labeled.mat?")
        self._file = file
        top, left, height, width = VALID_CROP_BOX
        self._crop_slices = (
            (slice(top, top + height), slice(left, left + width)) if crop else (slice(None),) * 2
        )

    def __len__(self) -> int:
        return int(self._arrays["depths"].shape[0])

    def __getitem__(self, index: int) -> RawFrame:
        """Frame `index`, from 0.

        Raises:
            DataError: the file is truncated or has an unknown label.
        """
        labels = self._read_array("labels", index)
        if labels.max() >= len(LABEL_TO_CLASS):
            unknown = f"frame {index + 1} has label {labels.max()}"
            raise DataError(f"{self._file}: {unknown}, there are {len(LABEL_TO_CLASS) - 1}")
        regions = labels.astype(np.int32) * 256 + self._read_array("instances", index)
        depth = self._read_array("depths", index).astype(np.float32)
        return RawFrame(self._read_array("images", index), LABEL_TO_CLASS[labels], regions, depth)

    def _read_array(self, name: str, index: int) -> NDArray[Any]:
        """MATLAB stores columns first, so all axes come reversed."""
        try:
            stored = self._arrays[name][index]
        except OSError as error:
            raise DataError(f"{self._file}: truncated; fetch it again") from error
        return np.ascontiguousarray(np.transpose(stored)[self._crop_slices])


def read_splits(file: Path) -> dict[str, list[int]]:
    """{"train", "val"}: numbers of the frames, from 1; val is what the authors call test.

    Raises:
        DataError: not that file.
    """
    splits = {"train": "trainNdxs", "val": "testNdxs"}
    values = arrays.read_mat(file)
    missing = [name for name in splits.values() if name not in values]
    if missing:
        raise DataError(f"{file}: holds no {missing[0]!r}; is it NYUD-v2's splits.mat?")
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
"""The class 1..40 of each label 1..894; 0 is unlabelled."""
