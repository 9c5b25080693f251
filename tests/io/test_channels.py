"""Images of any number of channels, from one or several files."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from densemtl.errors import DataError
from densemtl.io.channels import read_channels, to_channels
from densemtl.io.image_inputs import to_channel_array
from tests.helpers.fake_datasets import Array

SIZE = (16, 20)
RNG = np.random.default_rng(0)


def make(channels: int, dtype: str) -> Array:
    shape = (*SIZE, channels)
    if dtype.startswith("float"):
        return RNG.uniform(-2, 2, shape).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def expect(array: Array) -> Array:
    """Return the values in 0..255."""
    factor = {"uint8": 1, "uint16": 1 / 257}.get(array.dtype.name, 255)
    return array.astype(np.float64) * factor


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("layout", ["contig", "separate", "npy", "npy first", "npz"])
def test_channels_and_types_are_kept(
    tmp_path: Path, dtype: str, channels: int, layout: str
) -> None:
    image, file = make(channels, dtype), tmp_path / "a.npy"
    first = np.ascontiguousarray(np.moveaxis(image, 2, 0))
    if layout in ("contig", "separate"):
        file = tmp_path / "a.tif"
        stored = image if layout == "contig" else first
        options = {"planarconfig": layout} if channels > 1 else {}
        tifffile.imwrite(file, stored.squeeze(), photometric="minisblack", **options)
    elif layout == "npz":
        file = tmp_path / "a.npz"
        np.savez(file, image)
    else:
        np.save(file, first if layout == "npy first" else image)
    read, orientation = read_channels([file], channels)
    assert read.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    assert read.shape == (*SIZE, channels)
    assert orientation is None or orientation == 1
    np.testing.assert_allclose(read, expect(image), rtol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_with_and_without_alpha(tmp_path: Path, dtype: str, channels: int) -> None:
    image, file = make(channels, dtype), tmp_path / "a.png"
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert cv2.imwrite(str(file), image[..., order])
    np.testing.assert_allclose(read_channels([file], channels)[0], expect(image), rtol=1e-6)


def test_files_are_joined_in_order(tmp_path: Path) -> None:
    color, depth = make(3, "uint8"), make(1, "uint16")[..., 0]
    cv2.imwrite(str(tmp_path / "color.png"), color[..., ::-1])
    cv2.imwrite(str(tmp_path / "depth.png"), depth)
    cv2.imwrite(str(tmp_path / "gray.png"), color[..., 0])
    files = [tmp_path / "color.png", tmp_path / "gray.png"]
    joined, _ = read_channels(files, 4)
    assert joined.dtype == np.uint8
    np.testing.assert_array_equal(joined, color[..., [0, 1, 2, 0]])
    mixed, _ = read_channels([files[0], tmp_path / "depth.png"], 4)
    assert mixed.dtype == np.float32
    np.testing.assert_array_equal(mixed[..., :3], color)
    np.testing.assert_allclose(mixed[..., 3], depth / 257, rtol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 6, 3), np.uint8), r"shape \(H, W, C\), this array \(4, 5, 6, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"this array \(0, 5, 3\)"),
        (np.zeros((4, 5, 3), np.int32), "must be uint8, uint16 or float, not int32"),
        (np.full((4, 5, 3), np.nan, np.float32), "NaN or infinite values"),
        (np.full((4, 5, 3), 1e300), "NaN or infinite values"),
    ],
)
def test_invalid_arrays_are_one_line(array: Array, message: str) -> None:
    with pytest.raises(DataError, match=rf"^here: .*{message}") as error:
        to_channels(array, 3, "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "text", "half", "other size", "other count"])
def test_broken_files_are_one_line(tmp_path: Path, damage: str) -> None:
    file, other = tmp_path / "a.tif", tmp_path / "b.npy"
    np.save(other, make(2, "uint8")[:-1] if damage == "other size" else make(2, "uint8"))
    if damage != "missing":
        tifffile.imwrite(file, make(5, "uint16"), photometric="minisblack", planarconfig="contig")
        data = file.read_bytes()
        file.write_bytes({"text": b"II no tiff", "half": data[:200]}.get(damage, data))
    with pytest.raises(DataError, match=r"a\.tif|b\.npy") as error:
        read_channels([other, file], 8 if damage == "other count" else 7)
    assert "\n" not in str(error.value)
    if damage.startswith("other"):
        wanted = {"other size": "16x20 pixels, but .*15x20", "other count": r"2 \+ 5 channels.* 8"}
        assert error.match(wanted[damage])


def test_tiff_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", make(5, "uint8"), photometric="minisblack")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r'a\.tif: .* `pip install "densemtl\[tiff\]"`'):
        read_channels([tmp_path / "a.tif"], 5)


def test_inputs_of_the_predictor_have_the_channels_of_the_model(tmp_path: Path) -> None:
    image = make(4, "uint8")
    np.save(tmp_path / "a.npy", image)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for given in (image, tensor, str(tmp_path / "a.npy"), tensor / 255):
        np.testing.assert_allclose(to_channel_array(given, 4), image, rtol=1e-5)
    with pytest.raises(DataError, match=r"4 channels, but the model takes 5; pass an array"):
        to_channel_array(image, 5)
