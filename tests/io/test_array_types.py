"""Arrays in .npz, .h5, .pfm and .exr files, and errors on broken ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from densemtl.errors import DataError
from densemtl.io import array_files, arrays, float_images
from tests.helpers.fake_datasets import Array

DEPTH = np.arange(12, dtype=np.float32).reshape(3, 4) + 0.5
OTHER = np.ones((2, 2), np.uint8)


def write_npz(file: Path, **values: Array) -> None:
    np.savez_compressed(file, **values)


def write_h5(file: Path, **values: Array) -> None:
    with h5py.File(file, "w") as handle:
        for name, value in values.items():
            handle[name] = value


def write_pfm(file: Path, *, depth: Array, byte_order: str = "<") -> None:
    channels = depth.shape[2] if depth.ndim == 3 else 1
    head = f"{'PF' if channels == 3 else 'Pf'}\n{depth.shape[1]} {depth.shape[0]}\n"
    head += "-1.0\n" if byte_order == "<" else "1.0\n"
    file.write_bytes(head.encode() + depth[::-1].astype(f"{byte_order}f4").tobytes())


def write_exr(file: Path, **values: Array) -> None:
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, values) as image:
        image.write(str(file))


WRITERS: dict[str, Callable[..., None]] = {
    ".npz": write_npz,
    ".h5": write_h5,
    ".hdf5": write_h5,
    ".pfm": write_pfm,
    ".exr": write_exr,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_only_array_is_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    WRITERS[suffix](file, depth=DEPTH)
    np.testing.assert_array_equal(arrays.read_array(file), DEPTH)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".exr"])
def test_arrays_are_selected_by_name(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    WRITERS[suffix](file, depth=DEPTH, other=2 * DEPTH)
    np.testing.assert_array_equal(arrays.read_array(file, "depth"), DEPTH)
    with pytest.raises(DataError, match=r"several variables; set the key to one of depth, other"):
        arrays.read_array(file)
    with pytest.raises(DataError, match=rf"a\{suffix}: no variable 'dept' .* depth, other"):
        arrays.read_array(file, "dept")


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_pfm_of_both_byte_orders_and_colors(tmp_path: Path, byte_order: str) -> None:
    file, image = tmp_path / "a.pfm", np.dstack([DEPTH, DEPTH + 1, DEPTH + 2])
    write_pfm(file, depth=image, byte_order=byte_order)
    np.testing.assert_array_equal(float_images.read_pfm(file), image)


def test_exr_channels_form_an_rgb_image(tmp_path: Path) -> None:
    file, image = tmp_path / "a.exr", np.dstack([DEPTH, DEPTH + 1, DEPTH + 2]).astype(np.float16)
    write_exr(file, RGB=image)
    np.testing.assert_array_equal(arrays.read_array(file), image)
    np.testing.assert_array_equal(arrays.read_array(file, "G"), image[..., 1])


def test_exr_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(DataError, match=r'a\.exr: .* `pip install "densemtl\[exr\]"`'):
        arrays.read_array(tmp_path / "a.exr")


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "half"])
def test_broken_files_are_one_line(tmp_path: Path, suffix: str, damage: str) -> None:
    file = tmp_path / f"a{suffix}"
    if damage == "half":
        WRITERS[suffix](file, depth=DEPTH)
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
    elif damage != "missing":
        file.write_bytes(b"no array" if damage == "text" else b"")
    with pytest.raises(DataError, match=rf"a\{suffix}") as error:
        arrays.read_array(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_arrays_without_numbers_are_an_error(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    WRITERS[suffix](file, names=np.array([b"x", b"y"]))
    with pytest.raises(DataError, match="not numbers"):
        arrays.read_array(file)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".pfm", ".exr"])
def test_declared_sizes_are_checked(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"a{suffix}"
    WRITERS[suffix](file, depth=np.zeros((200, 300), np.float32))
    for module in (array_files, float_images):
        monkeypatch.setattr(module, "MAX_ARRAY_BYTES", 4 * 200 * 300 - 1)
    monkeypatch.setattr(float_images, "read_bytes", lambda file, _: file.read_bytes())
    with pytest.raises(DataError, match=r"MB of memory"):
        arrays.read_array(file)


def test_hdf5_links_are_rejected(tmp_path: Path) -> None:
    write_h5(tmp_path / "secret.h5", depth=DEPTH)
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        handle["depth"] = h5py.ExternalLink("secret.h5", "depth")
    with pytest.raises(DataError, match="'depth' is a link, which can refer to any file"):
        arrays.read_array(tmp_path / "a.h5")
