"""Readers of arrays: all formats, and one error of one line for each kind of damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from densemtl.errors import DataError
from densemtl.io import arrays
from tests.helpers import fake_datasets

RAMP = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    file = tmp_path / "a.jpg"
    fake_datasets.write_image(file, fake_datasets.FakeScene(0, (48, 64)).image)
    return file


def says(file: Path, *words: str) -> Callable[[DataError], bool]:
    """Return a check whether an error is one line with the file and these words."""

    def check(error: DataError) -> bool:
        text = str(error)
        return text.startswith(str(file)) and "\n" not in text and all(w in text for w in words)

    return check


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.999])
def test_truncated_jpeg_is_an_error(jpeg: Path, fraction: float) -> None:
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(DataError, check=says(jpeg, "truncated")):
        arrays.read_image(jpeg)


def test_truncated_jpeg_with_a_complete_thumbnail_is_an_error(jpeg: Path) -> None:
    """The thumbnail has the same end marker as an image."""
    data = jpeg.read_bytes()
    thumbnail = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + header + data[2:]
    jpeg.write_bytes(whole)
    assert arrays.read_image(jpeg).shape == (48, 64, 3)
    jpeg.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(DataError, check=says(jpeg, "truncated")):
        arrays.read_image(jpeg)


def test_bytes_after_the_end_marker_are_accepted(jpeg: Path) -> None:
    jpeg.write_bytes(jpeg.read_bytes() + b"\0" * 300)
    assert arrays.read_image(jpeg).shape == (48, 64, 3)


@pytest.mark.parametrize("suffix", [".png", ".npy", ".mat"])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.6])
def test_truncated_label_is_an_error(tmp_path: Path, suffix: str, fraction: float) -> None:
    file = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 2**16, (48, 64)).astype(np.uint16)
    writers = {".png": fake_datasets.write_image, ".npy": fake_datasets.write_array}
    writers.get(suffix, lambda file, values: fake_datasets.write_mat(file, depth=values))(
        file, noise
    )
    data = file.read_bytes()
    file.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(DataError, check=says(file)):
        arrays.read_array(file)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.npy", "a.mat"])
def test_missing_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, check=says(tmp_path / name, "No such file")):
        arrays.read_array(tmp_path / name)


def test_corrupt_png_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    fake_datasets.write_image(file, RAMP)
    data = bytearray(file.read_bytes())
    data[60:80] = bytes(20)
    file.write_bytes(data)
    with pytest.raises(DataError, check=says(file)):
        arrays.read_array(file)


def test_pickled_objects_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, check=says(file)):
        arrays.read_array(file)


def test_png_keeps_16_bits_and_the_order_of_colors(tmp_path: Path) -> None:
    fake_datasets.write_image(tmp_path / "deep.png", RAMP)
    np.testing.assert_array_equal(arrays.read_array(tmp_path / "deep.png"), RAMP)
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    np.testing.assert_array_equal(arrays.read_array(tmp_path / "red.png"), red)
    np.testing.assert_array_equal(arrays.read_image(tmp_path / "red.png"), red)


def test_palette_png_gives_indices(tmp_path: Path) -> None:
    """The original masks of PASCAL have a palette."""
    indices = (RAMP % 21).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(arrays.read_array(tmp_path / "a.png"), indices)


@pytest.mark.parametrize("first", [False, True])
def test_float_image_channels_last_or_first(tmp_path: Path, first: bool) -> None:
    image = fake_datasets.FakeScene(0, (6, 7)).image
    stored = image / 255
    fake_datasets.write_array(tmp_path / "a.npy", np.moveaxis(stored, -1, 0) if first else stored)
    np.testing.assert_array_equal(arrays.read_image(tmp_path / "a.npy"), image)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 5)), np.full((4, 5, 3), 200.0)], ids=["gray", "range"]
)
def test_array_that_is_no_image_is_an_error(tmp_path: Path, bad: np.ndarray) -> None:
    fake_datasets.write_array(tmp_path / "a.npy", bad)
    with pytest.raises(DataError, check=says(tmp_path / "a.npy")):
        arrays.read_image(tmp_path / "a.npy")


def test_mat_files_of_both_versions(tmp_path: Path) -> None:
    fake_datasets.write_mat(tmp_path / "old.mat", depth=RAMP, other=1)
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["depth"] = RAMP.T
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with (tmp_path / "new.mat").open("r+b") as handle:
        handle.write(header)
    for name in ("old.mat", "new.mat"):
        np.testing.assert_array_equal(arrays.read_array(tmp_path / name, "depth"), RAMP)
    with pytest.raises(DataError, match=r"old\.mat: no variable 'labels' .* depth, other"):
        arrays.read_array(tmp_path / "old.mat", "labels")


def test_split_list_with_windows_line_ends_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    file.write_bytes(b"\xef\xbb\xbf0003\r\n\r\n0004  \r\n")
    assert arrays.read_split_list(file) == ["0003", "0004"]


@pytest.mark.parametrize(
    ("text", "word"), [("", "empty"), ("\n \n", "empty"), ("a\nb\na\n", "'a' twice")]
)
def test_invalid_split_list_is_an_error(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "train.txt"
    file.write_text(text)
    with pytest.raises(DataError, check=says(file, word)):
        arrays.read_split_list(file)


def test_missing_split_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, check=says(tmp_path / "val.txt", "split list")):
        arrays.read_split_list(tmp_path / "val.txt")


def test_index_by_stem_prefers_npy_and_skips_hidden_files(tmp_path: Path) -> None:
    for name in ("1.png", "1.npy", "2.JPG", ".3.png", "4.txt"):
        (tmp_path / name).touch()
    assert {key: file.name for key, file in arrays.index_by_stem(tmp_path).items()} == {
        "1": "1.npy",
        "2": "2.JPG",
    }
    assert arrays.index_by_stem(tmp_path / "none") == {}
