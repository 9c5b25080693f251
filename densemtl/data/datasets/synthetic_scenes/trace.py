"""Ray casting: the first surface behind every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.intersect import intersect
from densemtl.data.datasets.synthetic_scenes.primitives import ShapeKind
from densemtl.data.datasets.synthetic_scenes.scene import ShapeArrays
from densemtl.types import Size

NEAR_PLANE = 0.02
"""Smallest visible distance from the camera in meters."""

_CUBE_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True)
class RayHits:
    """First hits of the rays of all pixels.

    Attributes:
        depth: z in meters, shape (H, W), float32; infinite where a ray hits nothing.
        shape_index: index of the shape that is hit, shape (H, W); -1 where a ray hits nothing.
    """

    depth: NDArray[np.float32]
    shape_index: NDArray[np.int32]


def trace_rays(shapes: ShapeArrays, camera: Camera, size: Size) -> RayHits:
    """Cast one ray through the center of each pixel.

    Ray directions have z = 1 in camera axes, so that the ray parameter is the depth. In the local
    coordinates of a shape, a ray direction is the sum of a vector per column and a vector per row.
    Each shape is intersected only with the rays inside its projected bounding box.

    Args:
        shapes: all shapes.
        camera: camera.
        size: (height, width) of the image in pixels.

    Returns:
        The first hits.
    """
    depth = np.full(size, np.inf, np.float32)
    index = np.full(size, -1, np.int32)
    columns, rows = camera.compute_ray_slopes(size)
    local = shapes.compute_world_to_local()
    turned = local @ camera.compute_rotation()
    origins = (local @ (np.array(camera.position) - shapes.center)[:, :, None])[:, :, 0]
    across = (turned[:, :, 0, None] * columns).astype(np.float32)[:, :, None, :]
    along = (turned[:, :, 1, None] * rows + turned[:, :, 2, None]).astype(np.float32)[..., None]
    origin, length = origins.astype(np.float32), shapes.half_length.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        for shape, (top, bottom, left, right) in _project_bounding_boxes(shapes, camera, size):
            rays = across[shape, :, :, left:right] + along[shape, :, top:bottom]
            hit_depth = intersect(ShapeKind(shapes.kind[shape]), origin[shape], rays, length[shape])
            window = depth[top:bottom, left:right]
            closer = (hit_depth < window) & (hit_depth > NEAR_PLANE)
            np.copyto(window, hit_depth, where=closer)
            np.copyto(index[top:bottom, left:right], np.int32(shape), where=closer)
    return RayHits(depth, index)


def _project_bounding_boxes(
    shapes: ShapeArrays, camera: Camera, size: Size
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Return (shape index, (top, bottom, left, right)) of each shape that may be visible.

    A shape that extends behind the camera has no finite projection. Its box is the whole image,
    unless the shape is completely outside one side of the view.
    """
    corners = (
        shapes.center[:, None]
        + (_CUBE_CORNERS * shapes.compute_half_extents()[:, None]) @ shapes.axes
    )
    x, y, z = np.moveaxis((corners - np.array(camera.position)) @ camera.compute_rotation(), 2, 0)
    columns, rows = camera.compute_ray_slopes(size)
    step = 1 / (camera.focal_length * size[1])
    behind = z.min(1) < NEAR_PLANE
    spans = []
    for position, slopes in ((y, rows), (x, columns)):
        low, high = slopes[0] - step, slopes[-1] + step
        outside = (
            (position < low * z).all(1) | (position > high * z).all(1) | (z < NEAR_PLANE).all(1)
        )
        ratio = position / np.maximum(z, NEAR_PLANE)
        first = np.clip((ratio.min(1) - slopes[0]) / step - 1, 0, len(slopes))
        last = np.clip((ratio.max(1) - slopes[0]) / step + 2, 0, len(slopes))
        first, last = np.where(behind, 0, first), np.where(behind, len(slopes), last)
        spans += [np.where(outside, 0, first).astype(int), np.where(outside, 0, last).astype(int)]
    top, bottom, left, right = spans
    visible = np.flatnonzero((bottom > top) & (right > left))
    return [(k, (top[k], bottom[k], left[k], right[k])) for k in visible.tolist()]
