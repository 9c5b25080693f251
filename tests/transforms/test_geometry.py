"""Geometry and the labels' own rules: what the picture does, the labels do."""

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
VIEWS = {
    "as it is": GeometricTransform(WHOLE, SIZE),
    "mirror": GeometricTransform(WHOLE, SIZE, flip=True),
    "crop": GeometricTransform((3, 5, 12, 20), (12, 20)),
    "zoom in": GeometricTransform((4, 6, 12, 18), (40, 60), scale=1.67),
    "zoom out": GeometricTransform((-10, -15, 40, 60), (40, 60), scale=0.5),
    "shrink": GeometricTransform(WHOLE, (10, 15)),
    "stretch and mirror": GeometricTransform((2, 2, 16, 26), (40, 39), flip=True),
    "turn": GeometricTransform(WHOLE, SIZE, angle=17.0),
    "turn, zoom and mirror": GeometricTransform((2, 3, 16, 24), (32, 48), 1.25, -33.0, True),
}


@pytest.mark.parametrize("size", [(6, 9), (7, 7), (5, 4)])
def test_mirror_twice_is_the_identity(any_task, draw_label, rng, size):
    label = draw_label(any_task, size, rng)
    mirror = GeometricTransform((0, 0, *size), size, flip=True)
    once = any_task.transform_label(label, mirror)
    assert not np.array_equal(once, label, equal_nan=label.dtype == np.float32)
    np.testing.assert_array_equal(any_task.transform_label(once, mirror), label)


def test_the_whole_view_changes_nothing(any_task, draw_label, rng):
    label = draw_label(any_task, SIZE, rng)
    before = label.copy()
    np.testing.assert_array_equal(any_task.transform_label(label, VIEWS["as it is"]), label)
    np.testing.assert_array_equal(label, before)


@pytest.mark.parametrize("view", VIEWS)
def test_warping_leaves_the_source_alone(any_task, draw_label, rng, view):
    label = draw_label(any_task, SIZE, rng)
    before = label.copy()
    warped = any_task.transform_label(label, VIEWS[view])
    assert warped.dtype == label.dtype
    assert warped.shape == (*VIEWS[view].size, *label.shape[2:])
    np.testing.assert_array_equal(label, before)


def test_only_what_scales_with_zoom_is_divided_by_it(any_task, draw_label, rng):
    label = draw_label(any_task, SIZE, rng)
    geometry = GeometricTransform((5, 7, 10, 15), SIZE, scale=2.0)
    expected = label[5:15, 7:22].repeat(2, 0).repeat(2, 1)
    if any_task.name == "depth":
        expected = expected / 2
    np.testing.assert_allclose(any_task.transform_label(label, geometry), expected, rtol=1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("side", [6, 7])
def test_quarter_turns_move_every_pixel_exactly(make_task, rng, turns, side):
    label = rng.integers(0, 3, (side, side)).astype(np.uint8)
    geometry = GeometricTransform((0, 0, side, side), (side, side), angle=90.0 * turns)
    warped = make_task("semseg").transform_label(label, geometry)
    np.testing.assert_array_equal(warped, np.rot90(label, turns))
    image = np.repeat(label[..., None] * np.uint8(80), 3, axis=2)
    np.testing.assert_array_equal(geometry.apply_image(image), np.rot90(image, turns))


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
def test_directions_turn_with_the_picture(
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
def test_an_arrow_to_a_dot_still_points_at_the_dot(make_task, angle, flip, towards):
    """The dot's new place is read from the class map, the arrow's direction from the normals."""
    middle, size = 20, (41, 41)
    geometry = GeometricTransform((0, 0, *size), size, angle=angle, flip=flip)
    x, y = towards
    dot = np.zeros(size, np.uint8)
    dot[middle + y - 1 : middle + y + 2, middle + x - 1 : middle + x + 2] = 1
    arrow = np.tile(np.float32([x, y, 0]) / np.float32(np.hypot(x, y)), (*size, 1))
    moved = (
        np.argwhere(make_task("semseg").transform_label(dot, geometry) == 1).mean(0)[::-1] - middle
    )
    turned = make_task("normals").transform_label(arrow, geometry)[middle, middle]
    np.testing.assert_allclose(turned[:2], moved / np.linalg.norm(moved), atol=0.06)
    assert turned[2] == 0


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("place", [(6, 9), (12, 18)])
def test_image_and_labels_stay_registered(make_task, view, place):
    """A bright square in the image and its label end up on the same pixels."""
    geometry = VIEWS[view]
    square = np.zeros(SIZE, bool)
    square[place[0] - 2 : place[0] + 3, place[1] - 2 : place[1] + 3] = True
    image = np.where(square[..., None], np.uint8(255), np.uint8(BORDER_COLOR))
    label = make_task("semseg").transform_label(square.astype(np.uint8), geometry) == 1
    brightness = geometry.apply_image(image)[..., 2].astype(float) - BORDER_COLOR[2]
    rows, columns = np.indices(geometry.size)
    seen = [(axis * brightness).sum() / brightness.sum() for axis in (rows, columns)]
    assert label.sum() >= 4
    np.testing.assert_allclose(np.argwhere(label).mean(0), seen, atol=0.6)


@pytest.mark.parametrize("angle", [0.0, 30.0])
@pytest.mark.parametrize("flip", [False, True])
def test_outside_the_source_is_void(any_task, draw_label, rng, angle, flip):
    label = draw_label(any_task, SIZE, rng, void=0.0)
    geometry = GeometricTransform((-20, -30, 60, 90), (60, 90), angle=angle, flip=flip)
    warped = any_task.transform_label(label, geometry)
    target = torch.from_numpy(warped)[None]
    if target.is_floating_point():
        target = target.unsqueeze(1) if target.ndim == 3 else target.permute(0, 3, 1, 2)
    valid = any_task.compute_valid_mask(target)[0].numpy()
    assert abs(int(valid.sum()) - SIZE[0] * SIZE[1]) <= (0 if angle == 0 else 30)
    picture = geometry.apply_image(np.zeros((*SIZE, 3), np.uint8))
    corner = picture[:4, :4].reshape(-1, 3)
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
def test_labels_never_blend(top, left, height, width, angle, flip):
    rows, columns = np.indices((15, 17))
    label = ((rows * 17 + columns) % 250).astype(np.uint8)
    geometry = GeometricTransform((top, left, height, width), (19, 13), 1.0, angle, flip)
    assert set(np.unique(geometry.apply_label(label, IGNORE_INDEX))) <= {
        *np.unique(label),
        IGNORE_INDEX,
    }
    metres = label.astype(np.float32) * 1.37
    metres[::3] = np.nan
    seen = geometry.apply_label(metres, np.nan)
    assert set(seen[np.isfinite(seen)]) <= set(metres[np.isfinite(metres)])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("view", ["crop", "zoom out", "turn", "stretch and mirror"])
def test_maps_of_any_number_of_channels(make_task, rng, channels, view):
    task = make_task("regression", channels=channels)
    shape = SIZE if channels == 1 else (*SIZE, channels)
    label = rng.normal(size=shape).astype(np.float32)
    warped = task.transform_label(label, VIEWS[view])
    first = VIEWS[view].apply_label(np.ascontiguousarray(label.reshape(*SIZE, -1)[..., -1]), np.nan)
    np.testing.assert_array_equal(warped.reshape(*VIEWS[view].size, -1)[..., -1], first)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 90.0, 25.0])
def test_to_source_says_where_each_pixel_comes_from(flip, angle):
    rows, columns = np.indices((21, 21))
    source = (rows * 10 + columns).astype(np.float32)
    geometry = GeometricTransform((2, 3, 15, 15), (15, 15), angle=angle, flip=flip)
    seen = geometry.apply_label(source, np.nan)
    for row, column in ((7, 7), (4, 9), (10, 5)):
        x, y = geometry.compute_inverse_matrix() @ (column, row, 1)
        assert seen[row, column] == source[round(y), round(x)]


def test_padding_and_restoring_give_back_every_pixel(rng):
    image = rng.integers(0, 256, (13, 18, 3)).astype(np.uint8)
    geometry, frame = pad_to_size((13, 18), (32, 20))
    padded = geometry.apply_image(image)
    assert padded.shape == (32, 20, 3)
    logits = torch.from_numpy(padded).permute(2, 0, 1)[None].float()
    back = LazyLogits.from_placement(logits, frame).upsample()[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(back, image)


def test_resizing_and_restoring_give_back_a_ramp():
    rows, columns = np.indices((12, 18))
    ramp = np.repeat((rows * 5 + columns * 7).astype(np.uint8)[..., None], 3, axis=2)
    geometry, frame = stretch_to_size((12, 18), (24, 36))
    logits = torch.from_numpy(geometry.apply_image(ramp)).permute(2, 0, 1)[None].float()
    assert logits.shape[-2:] == (24, 36)
    back = LazyLogits.from_placement(logits, frame).upsample()[0, 0].numpy()
    assert back.shape == (12, 18)
    np.testing.assert_allclose(back[1:-1, 1:-1], ramp[1:-1, 1:-1, 0], atol=0.51)
