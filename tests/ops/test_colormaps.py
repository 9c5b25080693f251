"""Palettes with distinguishable colors, and monotonic colormaps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from densemtl.ops.colormaps import (
    apply_probability_colormap,
    apply_turbo_colormap,
    apply_viridis_colormap,
    make_palette,
)


def lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0]


@pytest.mark.parametrize(("count", "min_distance"), [(2, 60), (6, 40), (13, 25), (40, 10)])
def test_class_colors_are_distinguishable(count, min_distance):
    colors = lab(np.vstack([make_palette(count), np.zeros((1, 3), np.uint8)]))
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distances[~np.eye(count + 1, dtype=bool)].min() > min_distance


def test_color_does_not_depend_on_number_of_classes():
    assert make_palette(255).shape == (255, 3)
    assert make_palette(255).dtype == np.uint8
    assert len(np.unique(make_palette(255), axis=0)) == 255
    for count in (1, 2, 21, 40):
        np.testing.assert_array_equal(make_palette(count), make_palette(255)[:count])


def test_viridis_is_monotonic_and_clipped():
    values = np.linspace(-1, 6, 15)[None]
    brightness = lab(apply_viridis_colormap(values, 0.0, 5.0)[0])[:, 0]
    inside = (values[0] >= 0) & (values[0] <= 5)
    assert (np.diff(brightness[inside]) < 0).all()
    assert (np.diff(brightness[~inside & (values[0] < 0)]) == 0).all()
    assert brightness[-1] == brightness[-2]


@pytest.mark.parametrize(
    "apply_colormap",
    [
        apply_probability_colormap,
        lambda values: apply_viridis_colormap(values, 0, 1),
        lambda values: apply_turbo_colormap(values, 0, 1),
    ],
)
def test_only_nan_is_black(apply_colormap):
    image = apply_colormap(np.array([[0, 0.5, 1, np.nan]], np.float32))
    assert image.shape == (1, 4, 3)
    assert image.dtype == np.uint8
    assert image.any(-1).tolist() == [[True, True, True, False]]


def test_turbo_distinguishes_equally_distant_numbers_and_ignored_pixels():
    values = np.array([-1, *np.linspace(0, 5, 11), 9, np.nan])[None]
    colors = lab(apply_turbo_colormap(values, 0.0, 5.0)[0])
    neighbors = np.linalg.norm(np.diff(colors[1:12], axis=0), axis=1)
    assert neighbors.min() > 12
    assert np.linalg.norm(colors[:-1] - colors[-1], axis=1).min() > 30
    np.testing.assert_array_equal(colors[[0, 12]], colors[[1, 11]])


def test_probability_colormap_is_monotonic():
    brightness = apply_probability_colormap(np.linspace(0, 1, 11)[None])[0].astype(int).sum(-1)
    assert (np.diff(brightness) > 0).all()
