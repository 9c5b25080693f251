"""Geometric transforms of images and labels, including the changes of label values by the tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.transforms.geometry import (
    BORDER_COLOR,
    GeometricTransform,
    pad_to_size,
    stretch_to_size,
)
from densemtl.types import IGNORE_INDEX

SIZE = (20, 30)
WHOLE = (0, 0, *SIZE)
TRANSFORMS = {
    "identity": GeometricTransform(WHOLE, SIZE),
    "flip": GeometricTransform(WHOLE, SIZE, flip=True),
    "crop": GeometricTransform((3, 5, 12, 20), (12, 20)),
    "zoom in": GeometricTransform((4, 6, 12, 18), (40, 60), scale=1.67),
    "zoom out": GeometricTransform((-10, -15, 40, 60), (40, 60), scale=0.5),
    "shrink": GeometricTransform(WHOLE, (10, 15)),
    "stretch and flip": GeometricTransform((2, 2, 16, 26), (40, 39), flip=True),
    "rotate": GeometricTransform(WHOLE, SIZE, angle=17.0),
    "rotate, zoom and flip": GeometricTransform((2, 3, 16, 24), (32, 48), 1.25, -33.0, True),
}


@pytest.mark.parametrize("size", [(6, 9), (7, 7), (5, 4)])
def test_flipping_twice_is_the_identity(any_task, draw_label, rng, size):
    label = draw_label(any_task, size, rng)
    flip = GeometricTransform((0, 0, *size), size, flip=True)
    once = any_task.transform_label(label, flip)
    assert not np.array_equal(once, label, equal_nan=label.dtype == np.float32)
    np.testing.assert_array_equal(any_task.transform_label(once, flip), label)


def test_identity_does_not_change_labels(any_task, draw_label, rng):
    label = draw_label(any_task, SIZE, rng)
    before = label.copy()
    np.testing.assert_array_equal(any_task.transform_label(label, TRANSFORMS["identity"]), label)
    np.testing.assert_array_equal(label, before)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_source_label_is_not_modified(any_task, draw_label, rng, name):
    label = draw_label(any_task, SIZE, rng)
    before = label.copy()
    warped = any_task.transform_label(label, TRANSFORMS[name])
    assert warped.dtype == label.dtype
    assert warped.shape == (*TRANSFORMS[name].size, *label.shape[2:])
    np.testing.assert_array_equal(label, before)


def test_only_depth_is_divided_by_scale(any_task, draw_label, rng):
    label = draw_label(any_task, SIZE, rng)
    geometry = GeometricTransform((5, 7, 10, 15), SIZE, scale=2.0)
    expected = label[5:15, 7:22].repeat(2, 0).repeat(2, 1)
    if any_task.name == "depth":
        expected = expected / 2
    np.testing.assert_allclose(any_task.transform_label(label, geometry), expected, rtol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("side", [6, 7])
def test_rotation_by_multiples_of_90_degrees_is_exact(make_task, rng, quarters, side):
    label = rng.integers(0, 3, (side, side)).astype(np.uint8)
    geometry = GeometricTransform((0, 0, side, side), (side, side), angle=90.0 * quarters)
    warped = make_task("semseg").transform_label(label, geometry)
    np.testing.assert_array_equal(warped, np.rot90(label, quarters))
    image = np.repeat(label[..., None] * np.uint8(80), 3, axis=2)
    np.testing.assert_array_equal(geometry.apply_image(image), np.rot90(image, quarters))


@pytest.mark.parametrize("name", ["normals", "direction"])
@pytest.mark.parametrize(
    ("angle", "flip", "right_becomes", "down_becomes"),
    [
        (0, True, (-1, 0), (0, 1)),
        (90, False, (0, -1), (1, 0)),
        (180, False, (-1, 0), (0, -1)),
        (-90, False, (0, 1), (-1, 0)),
        (90, True, (0, -1), (-1, 0)),
    ],
)
def test_directions_rotate_with_the_image(
    make_task, name, angle, flip, right_becomes, down_becomes
):
    task = make_task(name)
    geometry = GeometricTransform((0, 0, 5, 5), (5, 5), angle=angle, flip=flip)
    for before, after in (((1, 0), right_becomes), ((0, 1), down_becomes)):
        label = np.zeros((5, 5, task.channels), np.float32)
        label[..., :2] = before
        warped = task.transform_label(label, geometry)
        np.testing.assert_allclose(warped[2, 2, :2], after, atol=1e-6)


@pytest.mark.parametrize("angle", [-140.0, -20.0, 13.0, 75.0])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("towards", [(14, 3), (-9, 12), (-4, -15)])
def test_class_maps_and_normals_are_rotated_consistently(make_task, angle, flip, towards):
    """A vector in the center that points at a dot of the class map still does after rotation."""
    middle, size = 20, (41, 41)
    geometry = GeometricTransform((0, 0, *size), size, angle=angle, flip=flip)
    x, y = towards
    dot = np.zeros(size, np.uint8)
    dot[middle + y - 1 : middle + y + 2, middle + x - 1 : middle + x + 2] = 1
    arrow = np.tile(np.float32([x, y, 0]) / np.float32(np.hypot(x, y)), (*size, 1))
    moved = (
        np.argwhere(make_task("semseg").transform_label(dot, geometry) == 1).mean(0)[::-1] - middle
    )
    rotated = make_task("normals").transform_label(arrow, geometry)[middle, middle]
    np.testing.assert_allclose(rotated[:2], moved / np.linalg.norm(moved), atol=0.06)
    assert rotated[2] == 0


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("center", [(6, 9), (12, 18)])
def test_image_and_labels_stay_aligned(make_task, name, center):
    """A bright square in the image and its label are moved to the same pixels."""
    geometry = TRANSFORMS[name]
    square = np.zeros(SIZE, bool)
    square[center[0] - 2 : center[0] + 3, center[1] - 2 : center[1] + 3] = True
    image = np.where(square[..., None], np.uint8(255), np.uint8(BORDER_COLOR))
    label = make_task("semseg").transform_label(square.astype(np.uint8), geometry) == 1
    brightness = geometry.apply_image(image)[..., 2].astype(float) - BORDER_COLOR[2]
    rows, columns = np.indices(geometry.size)
    centroid = [(axis * brightness).sum() / brightness.sum() for axis in (rows, columns)]
    assert label.sum() >= 4
    np.testing.assert_allclose(np.argwhere(label).mean(0), centroid, atol=0.6)


@pytest.mark.parametrize("angle", [0.0, 30.0])
@pytest.mark.parametrize("flip", [False, True])
def test_pixels_outside_the_source_are_ignored(any_task, draw_label, rng, angle, flip):
    label = draw_label(any_task, SIZE, rng, void=0.0)
    geometry = GeometricTransform((-20, -30, 60, 90), (60, 90), angle=angle, flip=flip)
    warped = any_task.transform_label(label, geometry)
    target = torch.from_numpy(warped)[None]
    if target.is_floating_point():
        target = target.unsqueeze(1) if target.ndim == 3 else target.permute(0, 3, 1, 2)
    valid = any_task.compute_valid_mask(target)[0].numpy()
    assert abs(int(valid.sum()) - SIZE[0] * SIZE[1]) <= (0 if angle == 0 else 30)
    image = geometry.apply_image(np.zeros((*SIZE, 3), np.uint8))
    corner = image[:4, :4].reshape(-1, 3)
    np.testing.assert_array_equal(corner, np.tile(np.uint8(BORDER_COLOR), (16, 1)))
    assert not valid[:4, :4].any()
    assert valid[30, 45]


@given(
    top=st.integers(-8, 10),
    left=st.integers(-8, 10),
    height=st.integers(8, 30),
    width=st.integers(8, 30),
    angle=st.sampled_from([0.0, 0.0, 11.0, -64.0]),
    flip=st.booleans(),
)
def test_labels_are_not_interpolated(top, left, height, width, angle, flip):
    rows, columns = np.indices((15, 17))
    label = ((rows * 17 + columns) % 250).astype(np.uint8)
    geometry = GeometricTransform((top, left, height, width), (19, 13), 1.0, angle, flip)
    assert set(np.unique(geometry.apply_label(label, IGNORE_INDEX))) <= {
        *np.unique(label),
        IGNORE_INDEX,
    }
    depth = label.astype(np.float32) * 1.37
    depth[::3] = np.nan
    warped = geometry.apply_label(depth, np.nan)
    assert set(warped[np.isfinite(warped)]) <= set(depth[np.isfinite(depth)])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("name", ["crop", "zoom out", "rotate", "stretch and flip"])
def test_maps_of_any_number_of_channels(make_task, rng, channels, name):
    task, transform = make_task("regression", channels=channels), TRANSFORMS[name]
    shape = SIZE if channels == 1 else (*SIZE, channels)
    label = rng.normal(size=shape).astype(np.float32)
    warped = task.transform_label(label, transform)
    last = np.ascontiguousarray(label.reshape(*SIZE, -1)[..., -1])
    expected = transform.apply_label(last, np.nan)
    np.testing.assert_array_equal(warped.reshape(*transform.size, -1)[..., -1], expected)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 90.0, 25.0])
def test_inverse_matrix_maps_pixels_to_their_source(flip, angle):
    rows, columns = np.indices((21, 21))
    source = (rows * 10 + columns).astype(np.float32)
    geometry = GeometricTransform((2, 3, 15, 15), (15, 15), angle=angle, flip=flip)
    warped = geometry.apply_label(source, np.nan)
    for row, column in ((7, 7), (4, 9), (10, 5)):
        x, y = geometry.compute_inverse_matrix() @ (column, row, 1)
        assert warped[row, column] == source[round(y), round(x)]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(40, 40), (24, 61), (20, 30)])
@pytest.mark.parametrize("box", [WHOLE, (-3, 4, 17, 40)])
def test_rotation_keeps_the_aspect_ratio_of_the_source(box, size, flip):
    """Stretching follows the rotation: it does not shear the rotated image."""

    def matrix(geometry: GeometricTransform) -> np.ndarray:
        return np.vstack([geometry.compute_inverse_matrix(), [0, 0, 1]])

    rotate = matrix(GeometricTransform(box, box[2:], angle=15.0))
    resize = matrix(GeometricTransform((0, 0, *box[2:]), size, flip=flip))
    both = matrix(GeometricTransform(box, size, angle=15.0, flip=flip))
    np.testing.assert_allclose(both, rotate @ resize, atol=1e-9)
    lengths = np.linalg.norm(rotate[:2, :2], axis=0)
    np.testing.assert_allclose(lengths, 1)
    assert abs(rotate[:2, 0] @ rotate[:2, 1]) < 1e-9


@pytest.mark.parametrize("size", [(41, 81), (81, 41)])
@pytest.mark.parametrize("towards", [(14, 3), (-9, 12)])
def test_stretched_class_maps_and_normals_are_rotated_consistently(make_task, size, towards):
    """In pixels of the source, a vector still points at a dot after rotation and stretching."""
    geometry = GeometricTransform((0, 0, 41, 41), size, angle=30.0)
    x, y = towards
    dot = np.zeros((41, 41), np.uint8)
    dot[20 + y - 1 : 20 + y + 2, 20 + x - 1 : 20 + x + 2] = 1
    arrow = np.tile(np.float32([x, y, 0]) / np.float32(np.hypot(x, y)), (41, 41, 1))
    found = np.argwhere(make_task("semseg").transform_label(dot, geometry) == 1).mean(0)
    moved = ((found + 0.5) * 41 / np.array(size) - 20.5)[::-1]
    rotated = make_task("normals").transform_label(arrow, geometry)[size[0] // 2, size[1] // 2]
    np.testing.assert_allclose(rotated[:2], moved / np.linalg.norm(moved), atol=0.06)


def test_padding_is_reverted_exactly(rng):
    image = rng.integers(0, 256, (13, 18, 3)).astype(np.uint8)
    geometry, placement = pad_to_size((13, 18), (32, 20))
    padded = geometry.apply_image(image)
    assert padded.shape == (32, 20, 3)
    logits = torch.from_numpy(padded).permute(2, 0, 1)[None].float()
    restored = LazyLogits.from_placement(logits, placement).upsample()[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(restored, image)


def test_resizing_of_a_ramp_is_reverted():
    rows, columns = np.indices((12, 18))
    ramp = np.repeat((rows * 5 + columns * 7).astype(np.uint8)[..., None], 3, axis=2)
    geometry, placement = stretch_to_size((12, 18), (24, 36))
    logits = torch.from_numpy(geometry.apply_image(ramp)).permute(2, 0, 1)[None].float()
    assert logits.shape[-2:] == (24, 36)
    restored = LazyLogits.from_placement(logits, placement).upsample()[0, 0].numpy()
    assert restored.shape == (12, 18)
    np.testing.assert_allclose(restored[1:-1, 1:-1], ramp[1:-1, 1:-1, 0], atol=0.51)
