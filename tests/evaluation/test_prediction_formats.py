"""Arrays of other projects: what each kind of number means, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.errors import DataError
from densemtl.evaluation.prediction_formats import ReadOptions, decode_array

FILE = Path("any") / "0001.png"


def read(task, array, **rules):
    return decode_array(np.asarray(array), task, FILE, ReadOptions(**rules))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float64])
def test_class_ids_of_any_type(make_task, dtype):
    found = read(make_task("semseg"), np.array([[0, 1], [2, 0]], dtype))
    np.testing.assert_array_equal(found, [[0, 1], [2, 0]])


def test_the_first_class_may_have_another_id(make_task):
    np.testing.assert_array_equal(read(make_task("semseg"), [[1, 3]], first_class_id=1), [[0, 2]])
    with pytest.raises(DataError, match=r"0001\.png: class id 0 is not among .* 1\.\.3"):
        read(make_task("semseg"), [[0, 3]], first_class_id=1)


@pytest.mark.parametrize(
    ("stored", "scale"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (bool, 1)]
)
@pytest.mark.parametrize("name", ["edge", "saliency", "binary"])
def test_probabilities_by_their_type(make_task, name, stored, scale):
    found = read(make_task(name), (np.array([[0, 1, 0.2]]) * scale).astype(stored))
    expected = {bool: 1.0}.get(stored, 0.2)
    np.testing.assert_allclose(found, [[0, 1, expected]], atol=1e-7)
    assert found.dtype == np.float32


def test_depth_is_metres_or_millimetres(make_task):
    task = make_task("depth")
    np.testing.assert_allclose(read(task, np.array([[1500, 0]], np.uint16)), [[1.5, 0]])
    np.testing.assert_allclose(read(task, np.array([[1500]], np.int32)), [[1.5]])
    np.testing.assert_allclose(read(task, [[[1.5]], [[-0.1]]]), [[1.5], [-0.1]])


@pytest.mark.parametrize(("stored", "most"), [(np.uint8, 255), (np.uint16, 65535)])
def test_normals_of_integers(make_task, stored, most):
    found = read(make_task("normals"), np.array([[[0, most, most // 2]]], stored))
    np.testing.assert_allclose(found, [[[-1, 1, 0]]], atol=0.004)
    assert found[0, 0, 0] == -1
    assert found[0, 0, 1] == 1


def test_normals_of_floats_stay_as_they_are_and_turn_into_camera_axes(make_task):
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, (5, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(read(make_task("normals"), vectors), vectors)
    np.testing.assert_array_equal(read(make_task("normals"), np.moveaxis(vectors, 2, 0)), vectors)
    turned = read(make_task("normals"), vectors, normals_axes=("left", "forward", "down"))
    expected = np.stack([-vectors[..., 0], vectors[..., 2], vectors[..., 1]], -1)
    np.testing.assert_array_equal(turned, expected)


def test_two_components_and_numbers_of_any_unit(make_task):
    pairs = np.random.default_rng(0).uniform(-1, 1, (4, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(read(make_task("direction"), pairs), pairs)
    np.testing.assert_array_equal(read(make_task("regression"), 5000 * pairs), 5000 * pairs)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("semseg", [[0, 3]], r"class id 3 is not among the known ids of 0\.\.2"),
        ("semseg", [[0, 255]], "class id 255"),
        ("semseg", [[0.5, 1]], "whole numbers"),
        ("semseg", np.zeros((4, 4, 3), np.uint8), "one number a pixel"),
        ("edge", [[-2.0, 3.0]], r"floats from 0 to 1, .* float64 from -2\.0 to 3\.0"),
        ("saliency", np.array([[0, 7]], np.int64), "from 0 to 7"),
        ("depth", np.array([[3]], np.uint8), "8 bits has no unit"),
        ("depth", [[1500.0]], "1500 m; floats must be metres, integers millimetres"),
        ("normals", np.full((2, 2, 3), 128.0), r"from -1 to 1, .* from 128\.0 to 128\.0"),
        ("normals", np.zeros((2, 2), np.uint8), "3 channels"),
        ("regression", np.zeros((2, 2)), "2 channels"),
        ("depth", [[np.nan, 1.0, np.inf]], "2 of 3 values are NaN or infinite"),
        ("edge", [[np.nan, 1.0]], "1 of 2 values"),
        ("semseg", [["a"]], "needs numbers"),
        ("depth", np.zeros((0, 4)), "needs numbers"),
    ],
)
def test_what_is_refused(make_task, name, array, message):
    with pytest.raises(DataError, match=rf"0001\.png: .*{message}"):
        read(make_task(name), array)
