"""Labels derived from other labels: normals from depth, edges from maps of regions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.ops.region_boundaries import find_region_boundaries
from densemtl.ops.thinning import thin
from densemtl.transforms.camera import Intrinsics

DEPTH_BIN = 0.07
"""Thickness of the slabs that normals are fitted in, in log depth; neighbours lie within two."""

WINDOW_PARAMS = (0.027, 0.0193, 0.7, 0.05)
"""(least, factor, exponent, most): half the fit's width, factor * metres ** exponent, in units of
the focal length. Kinect depth is noisier far away, so the fit is wider there."""


def normals_from_depth(depth: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Normals of the visible surfaces, by local least-squares fits of planes.

    In the picture a plane is linear in inverse depth, 1/z = a x + b y + c for the ray (x, y, 1),
    and its normal is -(a, b, c) up to length. So a fit is a linear regression, whose moments are
    sums over a window (a box twice, hence weights that fade). To keep objects apart the scene is
    cut into slabs of depth: a pixel is fitted to those of its own and the neighbouring slabs.

    Args:
        depth: HxW metres, NaN where unknown.
        intrinsics: of this picture's size.

    Returns:
        HxWx3 float32 unit vectors in camera axes that face the camera (z < 0, except for steep
        surfaces away from the middle of the picture: 4 % of NYUD-v2), NaN where the depth is
        unknown or its neighbours span no plane.
    """
    valid = np.isfinite(depth)
    result = np.full((*depth.shape, 3), np.nan, np.float32)
    if not valid.any():
        return result
    moments = _compute_moments(depth, valid, intrinsics)
    log = np.log(np.where(valid, depth, 1))
    nearest = float(log[valid].min())
    slabs = np.where(valid, np.rint((log - nearest) / DEPTH_BIN), -1)
    for slab in np.unique(slabs[valid]):
        centre = nearest + slab * DEPTH_BIN
        in_slab = slabs == slab
        width = _compute_window_size(float(np.exp(centre)), intrinsics)
        rows, columns = _compute_padded_bounds(in_slab, width)
        near = valid[rows, columns] & (np.abs(log[rows, columns] - centre) <= 2 * DEPTH_BIN)
        sums = _apply_box_filter(moments[rows, columns] * near[..., None], width)
        inside = in_slab[rows, columns]
        result[rows, columns][inside] = _fit_plane_normals(sums[inside])
    return result


def _compute_moments(
    depth: NDArray[np.float32], valid: NDArray[np.bool_], intrinsics: Intrinsics
) -> NDArray[np.float32]:
    """HxWx9: 1, x, y, xx, xy, yy, w, wx, wy of each ray (x, y, 1) and inverse depth w."""
    height, width = depth.shape
    x, y = np.meshgrid(
        (np.arange(width, dtype=np.float32) - intrinsics.cx) / intrinsics.fx,
        (np.arange(height, dtype=np.float32) - intrinsics.cy) / intrinsics.fy,
    )
    w = 1 / np.where(valid, depth, 1)
    ones = np.ones_like(x)
    return np.stack([ones, x, y, x * x, x * y, y * y, w, w * x, w * y], -1).astype(np.float32)


def _compute_window_size(depth: float, intrinsics: Intrinsics) -> int:
    """The odd side in pixels of the box that is applied twice at a depth."""
    least, factor, exponent, most = WINDOW_PARAMS
    pixels = intrinsics.fx * np.clip(factor * depth**exponent, least, most)
    return max(2 * round((float(pixels) - 1) / 2) + 1, 3)


def _compute_padded_bounds(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Rows and columns of a mask's bounding box with a margin."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    rows = slice(max(top - margin, 0), top + height + margin)
    return rows, slice(max(left - margin, 0), left + width + margin)


def _apply_box_filter(moments: NDArray[np.float32], window_size: int) -> NDArray[np.float32]:
    for _ in range(2):
        moments = cv2.boxFilter(
            moments, -1, (window_size, window_size), borderType=cv2.BORDER_CONSTANT
        )
    return moments


def _fit_plane_normals(sums: NDArray[np.float32]) -> NDArray[np.float64]:
    """Nx9 weighted moments -> Nx3 unit normals; NaN where the rays do not span a plane."""
    weight, x, y, xx, xy, yy, w, wx, wy = sums.astype(np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y, xx, xy, yy, w, wx, wy = (moment / weight for moment in (x, y, xx, xy, yy, w, wx, wy))
        xx, xy, yy = xx - x * x, xy - x * y, yy - y * y
        wx, wy = wx - w * x, wy - w * y
        determinant = xx * yy - xy * xy
        determinant[determinant <= 1e-4 * (xx + yy) ** 2] = np.nan
        a, b = (yy * wx - xy * wy) / determinant, (xx * wy - xy * wx) / determinant
        normal = -np.stack([a, b, w - a * x - b * y], -1)
        unit: NDArray[np.float64] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    return unit


def derive_region_edges(regions: NDArray[np.integer]) -> NDArray[np.uint8]:
    """HxW region ids -> uint8 1 on their boundaries."""
    return find_region_boundaries(regions).astype(np.uint8)


def derive_laplacian_edges(regions: NDArray[np.integer]) -> NDArray[np.uint8]:
    """HxW region ids -> uint8 1 where their Laplacian is not 0, thinned to 1 pixel.

    The training label of the edge task on PASCAL-Context (Maninis et al., CVPR 2019).
    """
    differs = cv2.Laplacian(regions.astype(np.float64), cv2.CV_64F) != 0
    return thin(differs).astype(np.uint8)
