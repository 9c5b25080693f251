"""Decoders of label arrays: values of the labels, and errors on invalid input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.errors import DataError
from densemtl.io import label_formats, vector_formats
from densemtl.types import IGNORE_INDEX

FILE = Path("some", "file.png")
IDS = {0: IGNORE_INDEX, 1: 0, 2: 1}


def test_decode_classes_maps_ids() -> None:
    stored = np.array([[0, 1, 2]])
    for dtype in (np.uint8, np.int64, np.float32):
        target = label_formats.decode_classes(stored.astype(dtype), IDS, FILE)
        assert target.dtype == np.uint8
        np.testing.assert_array_equal(target, [[IGNORE_INDEX, 0, 1]])
    np.testing.assert_array_equal(
        label_formats.decode_classes(stored - 1, {-1: 255, 0: 0, 1: 1}, FILE), target
    )


@pytest.mark.parametrize("bad", [3, 255, 70000, -1, -300])
def test_class_id_out_of_range_is_an_error(bad: int) -> None:
    with pytest.raises(DataError, match=rf"file\.png: class id {bad} .* of 0\.\.2"):
        label_formats.decode_classes(np.array([[1, bad]]), IDS, FILE)


def test_unknown_class_id_within_the_range_is_an_error() -> None:
    with pytest.raises(DataError, match="class id 7 "):
        label_formats.decode_classes(np.array([[7]], np.uint8), {0: 0, 255: IGNORE_INDEX}, FILE)


@pytest.mark.parametrize("bad", [np.ones((2, 2)) / 2, np.full((2, 2), np.nan), np.ones((2, 2, 4))])
def test_array_that_is_no_class_map_is_an_error(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"file\.png"):
        label_formats.decode_classes(bad, IDS, FILE)


def facing(size: tuple[int, int] = (4, 5)) -> np.ndarray:
    """Return a map of the unit vector (0.6, 0, -0.8)."""
    return np.broadcast_to(np.array([0.6, 0.0, -0.8]), (*size, 3)).copy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("invalid", [0, "middle"])
def test_decode_normals_from_integers(dtype: type, invalid: object) -> None:
    maximum = np.iinfo(dtype).max
    stored = np.rint((facing() + 1) * maximum / 2).astype(dtype)
    stored[0, 0] = maximum // 2 + 1 if invalid == "middle" else 0
    normals = vector_formats.decode_normals(stored, FILE)
    assert np.isnan(normals[0, 0]).all()
    np.testing.assert_allclose(normals[1:], facing()[1:], atol=2 / maximum)
    np.testing.assert_allclose(np.linalg.norm(normals[1:], axis=-1), 1, rtol=1e-6)


def test_decode_normals_from_floats_channels_last_or_first() -> None:
    stored = 0.97 * facing()
    stored[0, 0] = 0
    stored[0, 1] = np.nan
    for values in (stored, np.moveaxis(stored, -1, 0)):
        normals = vector_formats.decode_normals(values, FILE)
        assert np.isnan(normals[0, :2]).all()
        np.testing.assert_allclose(normals[1:], facing()[1:], rtol=1e-6)


def test_decode_normals_converts_other_axes() -> None:
    """A floor, a wall on the left and a wall in front, stored in the axes left, forward, up."""
    camera = np.array([[[0, -1, 0], [1, 0, 0], [0, 0, -1]]], np.float32)
    stored = np.array([[[0, 0, 1], [-1, 0, 0], [0, -1, 0]]], np.float32)
    np.testing.assert_array_equal(
        vector_formats.decode_normals(stored, FILE, ("left", "forward", "up")), camera
    )


def test_incomplete_axes_are_an_error() -> None:
    with pytest.raises(DataError, match=r"data\.normals_axes: right, left, forward omit one"):
        vector_formats.decode_normals(
            np.zeros((2, 2, 3), np.float32), FILE, ("right", "left", "forward")
        )


def test_normals_that_face_away_are_an_error() -> None:
    with pytest.raises(DataError, match=r"file\.png.*face away.*normals_axes"):
        vector_formats.decode_normals(-facing(), FILE)


@pytest.mark.parametrize("bad", [np.zeros((4, 5)), np.zeros((4, 5, 4)), 5 * facing()])
def test_invalid_normals_are_an_error(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"file\.png"):
        vector_formats.decode_normals(bad, FILE)


def test_decode_binary_thresholds_at_half_of_the_maximum() -> None:
    np.testing.assert_array_equal(
        label_formats.decode_binary(np.array([[0, 0.4, 0.6, 1]]), FILE), [[0, 0, 1, 1]]
    )
    levels = np.array([[0, 127, 128, 255]], np.uint8)
    np.testing.assert_array_equal(label_formats.decode_binary(levels, FILE), [[0, 0, 1, 1]])
    np.testing.assert_array_equal(
        label_formats.decode_binary(levels, FILE, max_value=255, ignore_values=(128,)),
        [[0, 0, IGNORE_INDEX, 1]],
    )


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0, [0, 1, 1, 1]), (0.2, [0, 0, 1, 1]), (0.9, [0, 0, 0, 1])]
)
def test_decode_binary_with_another_threshold(threshold: float, expected: list[int]) -> None:
    for stored in (np.array([[0, 51, 52, 255]], np.uint8), np.array([[0, 0.1, 0.3, 1]])):
        binary = label_formats.decode_binary(stored, FILE, threshold=threshold)
        np.testing.assert_array_equal(binary, [expected])


def test_decode_binary_with_given_maximum_of_a_dark_map() -> None:
    dark = np.array([[0, 1, 1]], np.uint8)
    assert label_formats.decode_binary(dark, FILE).sum() == 2
    assert label_formats.decode_binary(dark, FILE, max_value=255).sum() == 0


@pytest.mark.parametrize("bad", [np.array([[-1.0]]), np.array([[300.0]]), np.array([[np.nan]])])
def test_invalid_binary_map_is_an_error(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"file\.png: a binary map"):
        label_formats.decode_binary(bad, FILE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize(
    ("ids", "known"),
    [
        ({**{key: key for key in range(19)}, 255: 255}, "0..18, 255 (ignored: 255)"),
        ({0: 0, 2: 1, 9: 2}, "0, 2, 9"),
        (dict.fromkeys(range(0, 40, 2), 0), "0, 2, 4, 6, 8, 10, 12, 14, .."),
    ],
)
def test_message_lists_the_ids_that_are_valid(
    ids: dict[int, int], known: str, dtype: type[np.generic]
) -> None:
    with pytest.raises(DataError) as error:
        label_formats.decode_classes(np.full((2, 2), 41, dtype), ids, Path("a.png"))
    assert f"class id 41 is not among the known ids of {known}; check" in str(error.value)
