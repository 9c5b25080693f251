"""Decoding of stored arrays for each kind of task, and errors for invalid arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.errors import DataError
from densemtl.evaluation.prediction_formats import ReadOptions, decode_array

FILE = Path("any") / "0001.png"


def read(task, array, **options):
    return decode_array(np.asarray(array), task, FILE, ReadOptions(**options))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float64])
def test_class_ids_of_any_type(make_task, dtype):
    found = read(make_task("semseg"), np.array([[0, 1], [2, 0]], dtype))
    np.testing.assert_array_equal(found, [[0, 1], [2, 0]])


def test_first_class_id_is_subtracted(make_task):
    np.testing.assert_array_equal(read(make_task("semseg"), [[1, 3]], first_class_id=1), [[0, 2]])
    with pytest.raises(DataError, match=r"0001\.png: class id 0 is not among .* 1\.\.3"):
        read(make_task("semseg"), [[0, 3]], first_class_id=1)


@pytest.mark.parametrize(
    ("stored", "scale"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (bool, 1)]
)
@pytest.mark.parametrize("name", ["edge", "saliency", "binary"])
def test_probabilities_of_any_type(make_task, name, stored, scale):
    prediction = read(make_task(name), (np.array([[0, 1, 0.2]]) * scale).astype(stored))
    expected = {bool: 1.0}.get(stored, 0.2)
    np.testing.assert_allclose(prediction, [[0, 1, expected]], atol=1e-7)
    assert prediction.dtype == np.float32


def test_depth_is_in_meters_or_millimeters(make_task):
    task = make_task("depth")
    np.testing.assert_allclose(read(task, np.array([[1500, 0]], np.uint16)), [[1.5, 0]])
    np.testing.assert_allclose(read(task, np.array([[1500]], np.int32)), [[1.5]])
    np.testing.assert_allclose(read(task, [[[1.5]], [[-0.1]]]), [[1.5], [-0.1]])


@pytest.mark.parametrize(("stored", "maximum"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_normals_are_scaled(make_task, stored, maximum):
    prediction = read(make_task("normals"), np.array([[[0, maximum, maximum // 2]]], stored))
    np.testing.assert_allclose(prediction, [[[-1, 1, 0]]], atol=0.004)
    assert prediction[0, 0, 0] == -1
    assert prediction[0, 0, 1] == 1


def test_float_normals_are_rotated_to_camera_axes(make_task):
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, (5, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(read(make_task("normals"), vectors), vectors)
    np.testing.assert_array_equal(read(make_task("normals"), np.moveaxis(vectors, 2, 0)), vectors)
    turned = read(make_task("normals"), vectors, normals_axes=("left", "forward", "down"))
    expected = np.stack([-vectors[..., 0], vectors[..., 2], vectors[..., 1]], -1)
    np.testing.assert_array_equal(turned, expected)


def test_directions_of_two_components_and_regression_of_any_range(make_task):
    pairs = np.random.default_rng(0).uniform(-1, 1, (4, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(read(make_task("direction"), pairs), pairs)
    np.testing.assert_array_equal(read(make_task("regression"), 5000 * pairs), 5000 * pairs)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("semseg", [[0, 3]], r"class id 3 is not among the known ids of 0\.\.2"),
        ("semseg", [[0, 255]], "class id 255"),
        ("semseg", [[0.5, 1]], "whole numbers"),
        ("semseg", np.zeros((4, 4, 3), np.uint8), "one number per pixel"),
        ("edge", [[-2.0, 3.0]], r"floats from 0 to 1, .* float64 from -2\.0 to 3\.0"),
        ("saliency", np.array([[0, 7]], np.int64), "from 0 to 7"),
        ("depth", np.array([[3]], np.uint8), "8-bit depth has no unit"),
        ("depth", [[1500.0]], "1500 m; floats must be in meters, integers in millimeters"),
        ("normals", np.full((2, 2, 3), 128.0), r"from -1 to 1 .* from 128\.0 to 128\.0"),
        ("normals", np.zeros((2, 2), np.uint8), "3 channels"),
        ("regression", np.zeros((2, 2)), "2 channels"),
        ("depth", [[np.nan, 1.0, np.inf]], "2 of 3 values are NaN or infinite"),
        ("edge", [[np.nan, 1.0]], "1 of 2 values"),
        ("semseg", [["a"]], "needs numbers"),
        ("depth", np.zeros((0, 4)), "needs numbers"),
    ],
)
def test_invalid_arrays_raise_an_error(make_task, name, array, message):
    with pytest.raises(DataError, match=rf"0001\.png: .*{message}"):
        read(make_task(name), array)
