"""Labels of images with an EXIF orientation are upright, or rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densemtl.data.file_dataset import FileDataset, LabelFiles
from densemtl.errors import DataError
from densemtl.io import arrays

LABEL: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 5, (6, 9), dtype=np.uint8)


class OneImage(FileDataset):
    """Dataset of the files image.png and label.SUFFIX."""

    def __init__(self, root: Path, suffix: str) -> None:
        self._label = root / f"label{suffix}"
        super().__init__("train", ["parts"], ["a"], {"a": root / "image.png"}, root)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def find_label_files(self, task: str) -> LabelFiles:
        return LabelFiles({"a": self._label}, arrays.read_array, self._label)


def save(file: Path, pixels: NDArray[np.uint8], orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, exif=exif)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_label_with_the_same_orientation_is_turned_with_its_image(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    save(tmp_path / "image.png", LABEL, orientation)
    save(tmp_path / f"label{suffix}", LABEL, orientation)
    sample = OneImage(tmp_path, suffix)[0]
    np.testing.assert_array_equal(sample.image[..., 0], sample.targets["parts"])


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_label_of_the_size_of_the_turned_image_is_upright(tmp_path: Path, orientation: int) -> None:
    save(tmp_path / "image.png", LABEL, orientation)
    upright = np.ascontiguousarray(LABEL.T)
    save(tmp_path / "label.png", upright, None)
    sample = OneImage(tmp_path, ".png")[0]
    assert sample.image.shape[:2] == upright.shape
    np.testing.assert_array_equal(sample.targets["parts"], upright)
    save(tmp_path / "label.png", LABEL, None)
    with pytest.raises(
        DataError, match=f"6x9 .* 9x6 .HxW., turned by EXIF orientation {orientation}"
    ):
        OneImage(tmp_path, ".png")[0]


@pytest.mark.parametrize("orientation", [2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_label_of_unknown_orientation_is_an_error(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    save(tmp_path / "image.png", LABEL, orientation)
    np.save(tmp_path / "label.npy", LABEL)
    save(tmp_path / "label.png", LABEL, None)
    with pytest.raises(
        DataError, match=rf"label{suffix}: its image .*image\.png is turned by EXIF"
    ):
        OneImage(tmp_path, suffix)[0]


def test_square_label_of_unknown_orientation_is_an_error(tmp_path: Path) -> None:
    square = np.ascontiguousarray(LABEL[:, :6])
    save(tmp_path / "image.png", square, 6)
    save(tmp_path / "label.png", square, None)
    with pytest.raises(DataError, match="orientation 6, but the label has none"):
        OneImage(tmp_path, ".png")[0]
    save(tmp_path / "label.png", square, 1)
    np.testing.assert_array_equal(OneImage(tmp_path, ".png")[0].targets["parts"], square)


@pytest.mark.parametrize("orientation", [None, 1])
def test_upright_image_needs_no_orientation_of_its_label(
    tmp_path: Path, orientation: int | None
) -> None:
    save(tmp_path / "image.png", LABEL, orientation)
    save(tmp_path / "label.png", LABEL, None)
    np.testing.assert_array_equal(OneImage(tmp_path, ".png")[0].targets["parts"], LABEL)
