"""Colours that can be told apart, and ramps that are monotonous."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from densemtl.ops.colormaps import apply_probability_colormap, apply_viridis_colormap, make_palette


def lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0]


@pytest.mark.parametrize(("count", "apart"), [(2, 60), (6, 40), (13, 25), (40, 10)])
def test_classes_can_be_told_apart_and_from_void(count, apart):
    colours = lab(np.vstack([make_palette(count), np.zeros((1, 3), np.uint8)]))
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(count + 1, dtype=bool)].min() > apart


def test_a_class_keeps_its_colour_whatever_their_number():
    assert make_palette(255).shape == (255, 3)
    assert make_palette(255).dtype == np.uint8
    assert len(np.unique(make_palette(255), axis=0)) == 255
    for count in (1, 2, 21, 40):
        np.testing.assert_array_equal(make_palette(count), make_palette(255)[:count])


def test_a_ramp_goes_from_bright_to_dark_and_stops_at_its_ends():
    values = np.linspace(-1, 6, 15)[None]
    brightness = lab(apply_viridis_colormap(values, 0.0, 5.0)[0])[:, 0]
    inside = (values[0] >= 0) & (values[0] <= 5)
    assert (np.diff(brightness[inside]) < 0).all()
    assert (np.diff(brightness[~inside & (values[0] < 0)]) == 0).all()
    assert brightness[-1] == brightness[-2]


@pytest.mark.parametrize(
    "paint", [apply_probability_colormap, lambda values: apply_viridis_colormap(values, 0, 1)]
)
def test_only_nan_is_black(paint):
    picture = paint(np.array([[0, 0.5, 1, np.nan]], np.float32))
    assert picture.shape == (1, 4, 3)
    assert picture.dtype == np.uint8
    assert picture.any(-1).tolist() == [[True, True, True, False]]


def test_probabilities_glow():
    brightness = apply_probability_colormap(np.linspace(0, 1, 11)[None])[0].astype(int).sum(-1)
    assert (np.diff(brightness) > 0).all()
