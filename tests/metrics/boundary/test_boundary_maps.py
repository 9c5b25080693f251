"""Thinning, non-maximum suppression and region boundaries of shapes with known results."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from densemtl.metrics.boundary.non_max_suppression import compute_normal_angle, suppress_non_maxima
from densemtl.ops.region_boundaries import find_region_boundaries
from densemtl.ops.thinning import thin

EIGHT = np.ones((3, 3), int)


def to_mask(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def blobs(seed, size=(60, 130), density=0.5):
    from scipy.ndimage import uniform_filter

    noise = np.random.default_rng(seed).random(size)
    smooth = uniform_filter(noise, 2 * seed % 7 + 1)
    return smooth > np.quantile(smooth, 1 - density)


def pieces(mask):
    return label(mask, EIGHT)[1]


def test_bar_is_thinned_to_its_middle_line():
    mask = np.zeros((9, 20), bool)
    mask[3:6, 2:18] = True
    rows, columns = np.nonzero(thin(mask))
    assert set(rows) == {4}
    assert columns.min() <= 4
    assert columns.max() >= 15


def test_vertical_bar_of_even_width_is_thinned_to_a_line():
    mask = np.zeros((30, 9), bool)
    mask[2:28, 3:7] = True
    found = thin(mask)
    assert found.sum(1).max() == 1
    assert found[5:25].any(1).all()


def test_thinned_plus_keeps_its_four_arms():
    mask = np.zeros((31, 31), bool)
    mask[14:17, 3:28] = mask[3:28, 14:17] = True
    found = thin(mask)
    expected = np.zeros_like(mask)
    expected[15, 5:26] = expected[5:26, 15] = True
    assert (found & expected).sum() >= expected.sum() - 2
    assert found.sum() <= expected.sum() + 4


def test_thinned_ring_is_a_ring():
    y, x = np.mgrid[-20:21, -20:21]
    found = thin((np.hypot(y, x) < 15) & (np.hypot(y, x) > 9))
    assert pieces(found) == 1
    assert label(~found)[1] == 2
    assert np.abs(np.hypot(y, x)[found] - 12).max() < 1.6


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 64), (3, 63), (5, 65), (2, 128)])
def test_thinned_block_does_not_vanish(shape):
    found = thin(np.ones(shape, bool))
    assert pieces(found) == 1
    assert found.sum() <= max(shape) + 1


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("density", [0.15, 0.5, 0.8])
def test_thinning_preserves_connected_components(seed, density):
    mask = blobs(seed, density=density)
    found = thin(mask)
    assert not (found & ~mask).any()
    assert pieces(found) == pieces(mask)
    assert np.array_equal(thin(found), found)


@pytest.mark.parametrize("seed", range(12))
def test_thinning_equals_scikit_image(seed):
    morphology = pytest.importorskip("skimage.morphology")
    mask = blobs(seed, (47, 60 + seed))
    assert np.array_equal(thin(mask), morphology.thin(mask))


def test_thinning_does_not_modify_its_argument():
    mask = np.ones((4, 4), bool)
    thin(mask)
    assert mask.all()


def test_region_boundaries_compare_east_and_south_neighbors():
    regions = np.array([[1, 1, 2], [1, 1, 2], [1, 3, 3]])
    assert np.array_equal(find_region_boundaries(regions), thin(to_mask(".#.", "###", "#..")))


def test_region_boundaries_compare_southeast_neighbors():
    """The third pixel of the first row differs from its southeast neighbor only."""
    regions = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
    found = find_region_boundaries(regions)
    assert np.array_equal(thin(to_mask("####", "####", "....")), found)
    assert not np.array_equal(thin(to_mask("##.#", "####", "....")), found)


def test_single_region_has_no_boundary():
    assert not find_region_boundaries(np.full((5, 7), 3)).any()


def test_line_read_as_regions_moves_by_at_most_one_pixel():
    line = np.zeros((9, 15), np.uint8)
    line[4, 2:13] = 255
    found = find_region_boundaries(line)
    rows, _ = np.nonzero(found)
    assert found.sum() >= 10
    assert np.abs(rows - 4).max() <= 1


def test_ignored_pixels_have_no_boundary():
    regions = np.array([[0, 0, 255, 255, 1, 1]] * 4, np.uint8)
    assert not find_region_boundaries(regions, ignore_index=255).any()
    assert find_region_boundaries(regions).any()


def ridge(degrees, size=41, width=2.0):
    """Draw a blurred line through the center with a given angle of its normal (x right, y down)."""
    y, x = np.mgrid[:size, :size] - size // 2
    angle = np.deg2rad(degrees)
    distance = x * np.cos(angle) + y * np.sin(angle)
    return np.exp(-((distance / width) ** 2) / 2), distance


@pytest.mark.parametrize("degrees", [0, 15, 30, 45, 60, 75, 88, 92, 110, 135, 150, 170])
def test_normal_angle_of_a_ridge(degrees):
    values, _ = ridge(degrees)
    angle = compute_normal_angle(values)[20, 20]
    error = np.abs((np.rad2deg(angle) - degrees + 90) % 180 - 90)
    assert error < 12


@pytest.mark.parametrize("degrees", [0, 15, 30, 45, 60, 75, 88, 92, 110, 135, 150, 170])
def test_suppression_keeps_only_the_ridge(degrees):
    values, distance = ridge(degrees)
    inner = np.s_[6:-6, 6:-6]
    kept = suppress_non_maxima(values)[inner] > 0.05
    assert np.abs(distance[inner][kept]).max() <= 1
    assert kept.any(0).sum() + kept.any(1).sum() >= 29
    assert (suppress_non_maxima(values)[inner][kept] == values[inner][kept]).all()


@pytest.mark.parametrize(("weaker", "stays"), [(0.995, True), (0.98, False)])
def test_suppression_keeps_pixels_within_the_tolerance(weaker, stays):
    values = np.zeros((30, 30))
    values[:, 14], values[:, 15] = 1, weaker
    found = suppress_non_maxima(values)[10:20]
    assert (found[:, 14] == 1).all()
    assert (found[:, 15] > 0).all() == stays


def test_suppression_fades_at_the_border():
    flat = suppress_non_maxima(np.full((12, 13), 0.5))
    assert flat[0].max() == flat[:, -1].max() == 0
    assert flat[6, :6] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert flat[-2:, 6] == pytest.approx([0.1, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (2, 2)])
def test_suppression_of_tiny_maps(shape):
    assert suppress_non_maxima(np.ones(shape)).shape == shape
