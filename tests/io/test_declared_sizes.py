"""Files that declare or expand to more than their size, and HDF5 files that refer to others."""

from __future__ import annotations

import os
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from densemtl.config.yaml_text import read_text
from densemtl.data.datasets.nyud_raw import NYUDRawFile
from densemtl.errors import ConfigError, DataError
from densemtl.io import array_files, arrays

SIDE = 31_000
"""Side of a square map of float32 that needs 3.8 GB."""


def write_npy(file: Path, shape: tuple[int, ...], kind: str = "<f4", data: int = 64) -> None:
    with file.open("wb") as handle:
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.write(bytes(data))


def write_sparse_npy(file: Path) -> None:
    write_npy(file, (SIDE, SIDE))
    os.truncate(file, file.stat().st_size + SIDE * SIDE * 4)


def make_matrix(shape: tuple[int, int], kind: int, content: bytes) -> bytes:
    """Return a variable of a MATLAB file v5 whose values declare to be complete."""
    flags = struct.pack("<IIII", 6, 8, kind, 0)
    dims = struct.pack("<IIii", 5, 8, *shape)
    name = struct.pack("<II8s", 1, 5, b"depth")
    body = flags + dims + name + content
    return struct.pack("<II", 14, len(body)) + body


def expand(element: bytes, zeros: int) -> bytes:
    """Return a compressed element of a MATLAB file: `element`, which zeros continue."""
    element = element[:4] + struct.pack("<I", len(element) - 8 + zeros) + element[8:]
    stream = zlib.compressobj(9)
    parts = [stream.compress(element)]
    block = bytes(2**24)
    parts += [stream.compress(block) for _ in range(zeros // len(block))]
    data = b"".join([*parts, stream.flush()])
    return struct.pack("<II", 15, len(data)) + data


def write_mat_v5(file: Path, *elements: bytes) -> None:
    file.write_bytes(b"MATLAB".ljust(124) + b"\x00\x01IM" + b"".join(elements))


def write_compressed_mat(file: Path) -> None:
    content = struct.pack("<II", 7, 2**26)
    write_mat_v5(file, expand(make_matrix((1, 2**24), 7, content), 2**26))


def write_mat_in_parts(file: Path) -> None:
    """Several variables, none of which is too large."""
    matrix = expand(make_matrix((1, 2**22), 7, struct.pack("<II", 7, 2**24)), 2**24)
    write_mat_v5(file, matrix, matrix, matrix)


def write_cell_mat(file: Path) -> None:
    """A cell array of very many empty arrays, each of which is an object in Python."""
    write_mat_v5(file, expand(make_matrix((1, 2**22), 1, b""), 2**24))


def write_mat_v4(file: Path) -> None:
    file.write_bytes(struct.pack("<IIIII", 0, SIDE, SIDE, 0, 6) + b"depth\0" + bytes(64))


def write_hdf5(file: Path, write: Callable[[h5py.File], object]) -> None:
    with h5py.File(file, "w", userblock_size=512) as handle:
        write(handle)
    with file.open("r+b") as handle:
        handle.write(b"MATLAB 7.3".ljust(124) + b"\x00\x02IM")


def write_empty_hdf5(file: Path) -> None:
    write_hdf5(file, lambda handle: handle.create_dataset("depth", (SIDE, SIDE), "f4"))


def write_compressed_hdf5(file: Path) -> None:
    write_hdf5(
        file,
        lambda handle: handle.create_dataset(
            "depth", (SIDE, SIDE), "f4", chunks=(1000, 1000), compression=9
        ),
    )


def write_large_chunks(file: Path) -> None:
    """A small dataset in a chunk that needs 2 GB."""
    write_hdf5(
        file,
        lambda handle: handle.create_dataset(
            "depth", (4, 4), "f4", chunks=(2**15, 2**14), maxshape=(None, None), compression=9
        ),
    )


def write_hdf5_in_parts(file: Path) -> None:
    def write(handle: h5py.File) -> None:
        for name in "abc":
            handle.create_dataset(name, (2**13, 2**14), "f4")

    write_hdf5(file, write)


def write_link_to_zeros(file: Path) -> None:
    file.symlink_to("/dev/zero")


def write_sparse_file(file: Path) -> None:
    file.write_bytes(b"\x89PNG\r\n\x1a\n")
    os.truncate(file, 5 * 10**9)


LARGE: list[tuple[str, Callable[[Path], None]]] = [
    ("a.npy", lambda file: write_npy(file, (SIDE, SIDE))),
    ("a.npy", lambda file: write_npy(file, (2**40, 2**40))),
    ("a.npy", lambda file: write_npy(file, (1, SIDE, SIDE, 1), "<c16")),
    ("a.npy", write_sparse_npy),
    ("a.mat", write_mat_v4),
    ("a.mat", write_empty_hdf5),
    ("a.mat", write_compressed_hdf5),
    ("a.mat", write_large_chunks),
    ("a.mat", write_hdf5_in_parts),
    *[(f"a{suffix}", write_link_to_zeros) for suffix in (".png", ".npy", ".mat", ".tif")],
    *[(f"a{suffix}", write_sparse_file) for suffix in (".png", ".npy", ".mat")],
]


@pytest.mark.parametrize(("name", "write"), LARGE, ids=lambda value: getattr(value, "__name__", ""))
def test_large_arrays_are_rejected_before_they_are_read(
    name: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(file := tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as error:
        arrays.read_array(file, "a" if "parts" in str(write) else None)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


@pytest.mark.parametrize("write", [write_compressed_mat, write_mat_in_parts, write_cell_mat])
def test_variables_that_expand_are_rejected(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_files, "MAX_ARRAY_BYTES", 2**25)
    monkeypatch.setattr(array_files, "MAX_NESTED_BYTES", 2**23)
    write(file := tmp_path / "a.mat")
    assert file.stat().st_size < 2**17
    with pytest.raises(DataError, match=rf"{file}: needs .* at most (32|8) MB"):
        arrays.read_array(file, "depth")


def test_readable_files_are_read_as_before(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float64).reshape(3, 4)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", np.asfortranarray(values))
    scipy.io.savemat(tmp_path / "a.mat", {"depth": values}, do_compression=True)
    scipy.io.savemat(tmp_path / "b.mat", {"depth": values})
    write_hdf5(tmp_path / "c.mat", lambda handle: handle.create_dataset("depth", data=values.T))
    for file in tmp_path.iterdir():
        assert np.array_equal(arrays.read_array(file), values)


def test_limit_holds_for_expanded_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"depth": np.zeros((100, 100))}, do_compression=True)
    assert file.stat().st_size < 1000
    monkeypatch.setattr(array_files, "MAX_ARRAY_BYTES", 80_200)
    assert arrays.read_array(file).shape == (100, 100)
    monkeypatch.setattr(array_files, "MAX_ARRAY_BYTES", 80_000)
    with pytest.raises(DataError, match=r"at most 0 MB are supported"):
        arrays.read_array(file)


def _write_external_storage(handle: h5py.File, secret: Path) -> None:
    handle.create_dataset("depth", (4, 4), "u1", external=[(str(secret), 0, 16)])


def _write_external_link(handle: h5py.File, secret: Path) -> None:
    handle["depth"] = h5py.ExternalLink(str(secret), "secret")


def _write_indirect_link(handle: h5py.File, secret: Path) -> None:
    handle.create_group("group")["secret"] = h5py.ExternalLink(str(secret), "secret")
    handle["depth"] = h5py.SoftLink("/group/secret")


def _write_virtual(handle: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 4), "u1")
    layout[:] = h5py.VirtualSource(str(secret), "secret", (4, 4))
    handle.create_virtual_dataset("depth", layout)


@pytest.mark.parametrize(
    "write",
    [_write_external_storage, _write_external_link, _write_indirect_link, _write_virtual],
)
def test_hdf5_files_cannot_read_other_files(
    write: Callable[[h5py.File, Path], None], tmp_path: Path
) -> None:
    secret, file = tmp_path / "secret.h5", tmp_path / "a.mat"
    with h5py.File(secret, "w") as handle:
        handle["secret"] = np.full((4, 4), 7, np.uint8)
    write_hdf5(file, lambda handle: write(handle, secret))
    with pytest.raises(DataError, match=r"a\.mat: 'depth' is .* any file") as error:
        arrays.read_array(file, "depth")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="any file"):
        NYUDRawFile(file)


@pytest.mark.parametrize(
    "values",
    [
        np.array([["a", "bc"]]),
        np.array([[b"a", b"bc"]]),
        np.zeros((2, 2), [("a", "f4"), ("b", "u1")]),
        np.zeros((2, 2), [("dépth", "f4")]),
        np.zeros((2, 2), "complex64"),
        np.zeros((2, 2), "M8[s]"),
        np.zeros((2, 2), "V3"),
        np.zeros((0, 4)),
        np.zeros((4, 0), "u1"),
        np.zeros((0,), "u1"),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
@pytest.mark.parametrize("suffix", [".npy", ".mat"])
def test_arrays_without_numbers_are_one_line(
    values: np.ndarray, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(file, values)
    elif values.dtype.kind in "VM":
        write_hdf5(file, lambda handle: handle.create_dataset("depth", (2, 2), "S3"))
    else:
        scipy.io.savemat(file, {"depth": values})
    for read in (arrays.read_array, arrays.read_image):
        with pytest.raises(DataError) as error:
            read(file)
        assert str(error.value).startswith(str(file))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["/dev/zero", "long", "fifo"])
def test_lists_without_end_are_rejected(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train.txt"
    if target == "long":
        file.touch()
        os.truncate(file, 5 * 10**9)
    elif target == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to(target)
    with pytest.raises(DataError, match=rf"{file}: (cannot be read: not a regular|needs .* MB)"):
        arrays.read_split_list(file)
    with pytest.raises(ConfigError, match=rf"{file}: "):
        read_text(file)


def test_duplicates_in_long_lists_are_found_quickly(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    names = [str(number) for number in range(100_000)]
    file.write_text("\n".join([*names, names[-1]]))
    with pytest.raises(DataError, match="contains '99999' twice"):
        arrays.read_split_list(file)
