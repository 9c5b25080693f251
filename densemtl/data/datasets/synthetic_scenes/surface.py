"""Position, normal and surface coordinates of the surface point at every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.primitives import ShapeKind
from densemtl.data.datasets.synthetic_scenes.scene import ShapeArrays
from densemtl.data.datasets.synthetic_scenes.trace import RayHits

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class SurfacePoints:
    """Surface points of N pixels in row-major order.

    Attributes:
        position: world coordinates in meters, shape (3, N).
        normal: unit normals in world axes that face the camera, shape (3, N).
        u: first surface coordinate in meters, shape (N,).
        v: second surface coordinate in meters, shape (N,).
        incidence_cosine: cosine of the angle between normal and ray, in (0, 1], shape (N,).
    """

    position: FloatArray
    normal: FloatArray
    u: FloatArray
    v: FloatArray
    incidence_cosine: FloatArray


def compute_surface_points(shapes: ShapeArrays, camera: Camera, hits: RayHits) -> SurfacePoints:
    """Compute the surface points at ray hits.

    Args:
        shapes: all shapes.
        camera: camera of the rays.
        hits: hits of the rays of all pixels; no ray may miss.

    Returns:
        The surface points.
    """
    index = hits.shape_index.ravel()
    ray, position = _compute_ray_positions(camera, hits)
    local = shapes.compute_world_to_local().astype(np.float32)
    offset = np.einsum("pij,pj->pi", local, np.array(camera.position) - shapes.center)
    path = ray * hits.depth.ravel()
    frames = np.ascontiguousarray(local.reshape(-1, 9).T).take(index, 1).reshape(3, 3, -1)
    local_points = np.einsum("ijn,jn->in", frames, path)
    local_points += np.ascontiguousarray(offset.astype(np.float32).T).take(index, 1)
    normal = _compute_local_normals(shapes, offset, local_points, index)
    scale = np.ascontiguousarray(shapes.scale.astype(np.float32).T).take(index, 1)
    u, v = _compute_surface_coordinates(local_points * scale, normal / scale)
    facing = np.einsum("ijn,in->jn", frames, normal)
    facing /= np.sqrt(np.einsum("in,in->n", facing, facing))
    slant = -np.einsum("in,in->n", facing, ray) / np.sqrt(np.einsum("in,in->n", ray, ray))
    return SurfacePoints(position, facing, u, v, np.maximum(slant, np.float32(1e-3)))


def _compute_ray_positions(camera: Camera, hits: RayHits) -> tuple[FloatArray, FloatArray]:
    """Return ray directions and hit points in world axes, both of shape (3, N)."""
    columns, rows = camera.compute_ray_slopes((hits.depth.shape[0], hits.depth.shape[1]))
    turn = camera.compute_rotation().astype(np.float32)
    down = turn[:, 1, None] * rows + turn[:, 2, None]
    ray: FloatArray = ((turn[:, 0, None] * columns)[:, None, :] + down[:, :, None]).reshape(3, -1)
    start = np.array(camera.position, np.float32)[:, None]
    return ray, start + ray * hits.depth.ravel()


def _compute_local_normals(
    shapes: ShapeArrays,
    origin: NDArray[np.float64],
    local_points: FloatArray,
    index: NDArray[np.int32],
) -> FloatArray:
    """Return normals in local coordinates of any length, shape (3, N).

    Rays hit a box or the caps of a cylinder only on faces that face the camera. These faces are
    determined for the whole shape, so that points on an edge never get the normal of a hidden face.
    """
    kind = shapes.kind[index]
    visible_side = np.where(np.abs(origin) > 1, np.sign(origin), 0).astype(np.float32)
    visible_side = np.ascontiguousarray(visible_side.T).take(index, 1)
    reach = local_points * visible_side
    normal = local_points.copy()
    box = np.flatnonzero(kind == ShapeKind.BOX)
    normal[:, box] = visible_side[:, box] * (np.arange(3)[:, None] == reach[:, box].argmax(0))
    tube = np.flatnonzero(kind == ShapeKind.CYLINDER)
    cap = reach[1, tube] > 1 - 1e-3
    normal[1, tube] = visible_side[1, tube] * cap
    normal[::2, tube] *= ~cap
    pill = np.flatnonzero(kind == ShapeKind.CAPSULE)
    length = shapes.half_length.astype(np.float32)[index[pill]]
    normal[1, pill] -= np.clip(local_points[1, pill], -length, length)
    return normal


def _compute_surface_coordinates(
    local_points: FloatArray, normal: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the local coordinates orthogonal to the main axis of the normal.

    They are (z, y), (x, z) or (x, y) for the main axis x, y or z.
    """
    axis = np.abs(normal).argmax(0)
    u = np.where(axis == 0, local_points[2], local_points[0])
    v = np.where(axis == 1, local_points[2], local_points[1])
    return u, v
