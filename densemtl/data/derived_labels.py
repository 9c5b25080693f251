"""Labels derived from other labels: normals from depth, edges from region maps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.ops.region_boundaries import find_region_boundaries
from densemtl.ops.thinning import thin
from densemtl.transforms.camera import Intrinsics

DEPTH_BIN = 0.07
"""Width in log depth of the depth bins; neighbors of a pixel are within two widths."""

WINDOW_PARAMS = (0.027, 0.0193, 0.7, 0.05)
"""(minimum, factor, exponent, maximum) of half the window width, factor * depth ** exponent, in
units of the focal length. The window grows with the depth in meters, as does the Kinect's noise."""


def normals_from_depth(depth: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Compute surface normals from depth by local least-squares plane fits.

    The inverse depth of a plane is linear in the image, 1/z = a x + b y + c for the ray (x, y, 1),
    and the normal is -(a, b, c) up to length. A fit is therefore a linear regression, and its
    moments are sums over a window. The box filter is applied twice, so that weights decrease with
    the distance. To separate objects, depths are divided into bins, and each pixel is fitted to
    the pixels whose depth is within two bin widths of the center of its bin.

    Args:
        depth: depth in meters, shape (H, W), NaN where unknown.
        intrinsics: camera of images of this size.

    Returns:
        Float32 unit vectors in camera axes, shape (H, W, 3). They face the camera (z < 0, except
        for steep surfaces far from the image center: 4 % of the pixels of NYUD-v2) and are NaN
        where the depth is unknown or the neighbors of a pixel do not span a plane.

    Example:
        >>> from densemtl.transforms.camera import Intrinsics
        >>> wall = np.full((16, 16), 2.0, np.float32)
        >>> normals = normals_from_depth(wall, Intrinsics(fx=16, fy=16, cx=7.5, cy=7.5))
        >>> normals.shape, normals[8, 8].round(3).tolist()[2]
        ((16, 16, 3), -1.0)
    """
    valid = np.isfinite(depth)
    result = np.full((*depth.shape, 3), np.nan, np.float32)
    if not valid.any():
        return result
    moments = _compute_moments(depth, valid, intrinsics)
    log_depth = np.log(np.where(valid, depth, 1))
    nearest = float(log_depth[valid].min())
    bins = np.where(valid, np.rint((log_depth - nearest) / DEPTH_BIN), -1)
    for each in np.unique(bins[valid]):
        center = nearest + each * DEPTH_BIN
        in_bin = bins == each
        width = _compute_window_size(float(np.exp(center)), intrinsics)
        rows, columns = _compute_padded_bounds(in_bin, width)
        near = valid[rows, columns] & (np.abs(log_depth[rows, columns] - center) <= 2 * DEPTH_BIN)
        sums = _apply_box_filter(moments[rows, columns] * near[..., None], width)
        inside = in_bin[rows, columns]
        result[rows, columns][inside] = _fit_plane_normals(sums[inside])
    return result


def _compute_moments(
    depth: NDArray[np.float32], valid: NDArray[np.bool_], intrinsics: Intrinsics
) -> NDArray[np.float32]:
    """Return (1, x, y, xx, xy, yy, w, wx, wy) of each ray (x, y, 1) and inverse depth w."""
    height, width = depth.shape
    x, y = np.meshgrid(
        (np.arange(width, dtype=np.float32) - intrinsics.cx) / intrinsics.fx,
        (np.arange(height, dtype=np.float32) - intrinsics.cy) / intrinsics.fy,
    )
    w = 1 / np.where(valid, depth, 1)
    ones = np.ones_like(x)
    return np.stack([ones, x, y, x * x, x * y, y * y, w, w * x, w * y], -1).astype(np.float32)


def _compute_window_size(depth: float, intrinsics: Intrinsics) -> int:
    """Return the odd side length in pixels of the box filter at a depth in meters."""
    least, factor, exponent, most = WINDOW_PARAMS
    pixels = intrinsics.fx * np.clip(factor * depth**exponent, least, most)
    return max(2 * round((float(pixels) - 1) / 2) + 1, 3)


def _compute_padded_bounds(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of a mask, extended by a margin."""
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
    """Fit unit normals (N, 3) to sums of moments (N, 9); NaN if the rays do not span a plane."""
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
    """Compute the boundaries between regions.

    The edge labels of the evaluation on PASCAL-Context, and of NYUD-v2 built from its raw file.

    Args:
        regions: region ids, shape (H, W).

    Returns:
        uint8 map of the same shape, 1 on boundaries and 0 elsewhere.
    """
    return find_region_boundaries(regions).astype(np.uint8)


def derive_laplacian_edges(regions: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Compute where the Laplacian of a region map is not 0, thinned to a width of 1 pixel.

    The training label of the edge task on PASCAL-Context (Maninis et al., CVPR 2019).

    Args:
        regions: region ids, shape (H, W).

    Returns:
        uint8 map of the same shape, 1 on edges and 0 elsewhere.

    Example:
        >>> regions = np.array([[1, 1, 1, 5, 5, 5]] * 5)
        >>> derive_laplacian_edges(regions)[2].tolist()
        [0, 0, 1, 0, 0, 0]
    """
    differs = cv2.Laplacian(regions.astype(np.float64), cv2.CV_64F) != 0
    return thin(differs).astype(np.uint8)
