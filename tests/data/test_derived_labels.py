"""Normals and edges derived from other labels, on scenes with a known result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from densemtl.data import derived_labels
from densemtl.transforms.camera import Intrinsics

CAMERA = Intrinsics(fx=130.0, fy=128.0, cx=70.0, cy=51.0)
SIZE = (106, 140)


def plane_depth(normal: NDArray, distance: float) -> NDArray[np.float32]:
    """Compute the depth of the plane normal . P = -distance; NaN where it is not visible."""
    x, y = np.meshgrid(
        (np.arange(SIZE[1]) - CAMERA.cx) / CAMERA.fx, (np.arange(SIZE[0]) - CAMERA.cy) / CAMERA.fy
    )
    facing = normal[0] * x + normal[1] * y + normal[2]
    depth = np.full(SIZE, np.nan, np.float32)
    seen = facing < -0.15
    depth[seen] = -distance / facing[seen]
    return depth


def angles(normals: NDArray, truth: NDArray) -> NDArray:
    """Compute the angular errors in degrees of all pixels with a normal."""
    cosine = (normals * truth).sum(-1)
    return np.degrees(np.arccos(np.clip(cosine[np.isfinite(cosine)], -1, 1)))


@settings(max_examples=25)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.7, 6))
def test_normals_of_a_plane(slant_x: float, slant_y: float, distance: float) -> None:
    normal = np.array([slant_x, slant_y, -1.0])
    normal /= np.linalg.norm(normal)
    depth = plane_depth(normal, distance)
    normals = derived_labels.normals_from_depth(depth, CAMERA)
    assert normals.dtype == np.float32
    assert angles(normals, normal).max() < 0.5
    np.testing.assert_array_equal(np.isnan(normals).any(-1), np.isnan(normals).all(-1))
    np.testing.assert_array_equal(np.isnan(normals).any(-1), np.isnan(depth))


def test_normals_of_noisy_quantized_depth(rng: np.random.Generator) -> None:
    """Depth has noise and steps of 39 mm, as with 8 bits; per-pixel errors would be 60 degrees."""
    normal = np.array([0.5, -0.3, -0.8])
    normal /= np.linalg.norm(normal)
    depth = plane_depth(normal, 2.0)
    depth = (np.round((depth + rng.normal(0, 0.01, SIZE)) / 0.039) * 0.039).astype(np.float32)
    assert angles(derived_labels.normals_from_depth(depth, CAMERA), normal).mean() < 6


def test_normals_at_depth_discontinuities() -> None:
    """The surfaces on both sides of a depth discontinuity do not affect each other."""
    wall, box = np.array([0.0, 0.0, -1.0]), np.array([0.6, 0.0, -0.8])
    depth, truth = plane_depth(wall, 4.0), np.broadcast_to(wall, (*SIZE, 3)).copy()
    depth[30:80, 40:100] = plane_depth(box, 1.0)[30:80, 40:100]
    truth[30:80, 40:100] = box
    errors = angles(derived_labels.normals_from_depth(depth, CAMERA), truth)
    assert errors.mean() < 0.2
    assert np.percentile(errors, 99) < 1


def test_normals_do_not_depend_on_the_image_size() -> None:
    """The size of windows is an angle, not a number of pixels."""
    depth = plane_depth(np.array([0.0, -0.6, -0.8]), 1.5)
    small, large = (
        derived_labels.normals_from_depth(depth, CAMERA),
        np.repeat(np.repeat(depth, 2, 0), 2, 1),
    )
    both = angles(derived_labels.normals_from_depth(large, CAMERA.scale(2))[::2, ::2], small)
    assert both.mean() < 1


def test_unknown_or_isolated_depth_gives_no_normal() -> None:
    depth = np.full(SIZE, np.nan, np.float32)
    assert np.isnan(derived_labels.normals_from_depth(depth, CAMERA)).all()
    depth[50, 70] = 2
    assert np.isnan(derived_labels.normals_from_depth(depth, CAMERA)).all()
    depth[50, 60:80] = 2
    assert np.isnan(derived_labels.normals_from_depth(depth, CAMERA)).all()
    depth[45:55, 60:80] = 2
    normals = derived_labels.normals_from_depth(depth, CAMERA)
    assert angles(normals, np.array([0, 0, -1])).max() < 0.1
    assert np.isfinite(normals).any(-1).sum() == 200


def test_region_edges_of_a_square() -> None:
    """Edges are the pixels that differ from their east, south or south-east neighbor."""
    regions = np.zeros((8, 9), np.int64)
    regions[3:6, 4:8] = 7
    expected = np.zeros((8, 9), np.uint8)
    expected[2, 3:8] = expected[2:6, 3] = 1
    expected[5, 3:8] = expected[2:6, 7] = 1
    edges = derived_labels.derive_region_edges(regions)
    assert edges.dtype == np.uint8
    assert edges[~expected.astype(bool)].sum() == 0
    assert edges.sum() >= expected.sum() - 4, "thinning removes corners only"
    assert derived_labels.derive_region_edges(np.full((5, 5), 3)).sum() == 0


@pytest.mark.parametrize(
    "derive_edges", [derived_labels.derive_region_edges, derived_labels.derive_laplacian_edges]
)
def test_edges_are_one_pixel_wide_and_near_the_border(derive_edges) -> None:
    regions = np.zeros((20, 30), np.uint16)
    regions[:, 13:] = 400
    edges = derive_edges(regions)
    assert (edges[1:-1].sum(1) == 1).all()
    assert set(np.flatnonzero(edges.any(0))) <= {12, 13}


def test_shift_and_scale_of_intrinsics() -> None:
    assert CAMERA.shift(-10, 5) == Intrinsics(130.0, 128.0, 60.0, 56.0)
    assert CAMERA.scale(0.5) == Intrinsics(65.0, 64.0, 35.0, 25.5)
