"""MATLAB files v5 of every kind are read; malformed ones are one line, and crash nothing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from densemtl.errors import DataError
from densemtl.io import arrays


def make_cell() -> np.ndarray:
    cell = np.empty((2, 2), object)
    cell[:] = [["a", 1.5], [np.eye(3), {"key": [1, 2], "inner": {"text": "x"}}]]
    return cell


@pytest.mark.parametrize("compressed", [False, True])
def test_all_kinds_of_variables_are_read(compressed: bool, tmp_path: Path) -> None:
    variables: dict[str, Any] = {
        **{"matrix": np.eye(3), "cube": np.zeros((2, 3, 4), np.uint8), "flag": True, "empty": []},
        **{"complex": 1j * np.eye(2), "sparse": scipy.sparse.csc_matrix(np.eye(3) * 1j)},
        **{"cell": make_cell(), "struct": {"a": 1, "b": {"c": "text"}}, "text": "é"},
        "texts": np.array(["ab", "cde"]),
        "records": np.array([(1, 2.0)], [("p", "i4"), ("q", "f8")]),
    }
    scipy.io.savemat(tmp_path / "a.mat", variables, do_compression=compressed)
    read = arrays.read_mat(tmp_path / "a.mat")
    assert read.keys() == variables.keys()
    assert np.array_equal(read["matrix"], np.eye(3))
    assert read["cell"][1, 1]["inner"].item()["text"].item() == "x"


def make_element(kind: int, data: bytes, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack("<II", kind, size) + data + bytes(-len(data) % 8)


def make_matrix(kind: int, *parts: bytes, dims: tuple[int, ...] = (1, 1)) -> bytes:
    flags = make_element(6, struct.pack("<II", kind, 0))
    shape = make_element(5, struct.pack(f"<{len(dims)}i", *dims))
    return make_element(14, flags + shape + make_element(1, b"depth") + b"".join(parts))


NUMBER = make_element(9, bytes(8))


@pytest.mark.parametrize(
    "matrix",
    [
        *(
            make_matrix(6, make_element(kind, bytes(8)))
            for kind in (0, 8, 10, 14, 15, 200, 2**16 - 1)
        ),
        make_matrix(6, make_element(9, bytes(8), 2**31)),
        *(make_matrix(kind) for kind in (1, 2, 3, 4, 5, 6, 16, 17, 18, 255)),
        *(
            make_matrix(kind, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
            for kind in (1, 2, 3, 4, 6, 17)
        ),
        *(make_matrix(kind, NUMBER, dims=(2**30, 8)) for kind in (1, 2, 3)),
        make_matrix(1, make_matrix(1, dims=(2**31 - 1, 1))),
        make_matrix(1, make_matrix(6, make_element(15, bytes(8)))),
        make_matrix(2, make_element(5, bytes(4)), make_element(1, b"a"), NUMBER),
        make_matrix(2, make_element(5, b"\xff" * 4), make_element(1, b"a"), NUMBER),
        make_matrix(6, NUMBER, dims=(-1, 4)),
        make_matrix(6, NUMBER, dims=(1,) * 40),
        make_matrix(6, NUMBER, dims=()),
        make_element(14, b""),
        make_element(14, bytes(8)),
        make_element(9, bytes(8)),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_malformed_files_are_one_line(matrix: bytes, compressed: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    data = make_element(15, zlib.compress(matrix)) if compressed else matrix
    file.write_bytes(b"MATLAB".ljust(124) + b"\x00\x01IM" + data)
    with pytest.raises(DataError) as error:
        arrays.read_mat(file)
    assert str(error.value).startswith(f"{file}: cannot be read (")
    assert "\n" not in str(error.value)


def test_well_formed_matrix_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    file.write_bytes(b"MATLAB".ljust(124) + b"\x00\x01IM" + make_matrix(6, NUMBER))
    assert arrays.read_array(file).tolist() == [[0.0]]
