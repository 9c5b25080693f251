"""Position, normal and surface coordinates of what every pixel shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.primitives import Kind
from densemtl.data.datasets.synthetic_scenes.scene import Shapes
from densemtl.data.datasets.synthetic_scenes.trace import Hits

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Points:
    """Surface points of N pixels in row-major order.

    Attributes:
        position: 3xN world metres.
        normal: 3xN unit, in world axes, facing the camera.
        u: N, first surface coordinate in metres.
        v: N, second surface coordinate in metres.
        slant: N, cosine between the normal and the ray, in (0, 1].
    """

    position: Float
    normal: Float
    u: Float
    v: Float
    slant: Float


def surface_points(shapes: Shapes, camera: Camera, hits: Hits) -> Points:
    """Read off the surfaces at hits; every ray must have met one."""
    index = hits.index.ravel()
    ray, position = _positions(camera, hits)
    local = shapes.local().astype(np.float32)
    offset = np.einsum("pij,pj->pi", local, np.array(camera.position) - shapes.centre)
    path = ray * hits.depth.ravel()
    frames = np.ascontiguousarray(local.reshape(-1, 9).T).take(index, 1).reshape(3, 3, -1)
    own = np.einsum("ijn,jn->in", frames, path)
    own += np.ascontiguousarray(offset.astype(np.float32).T).take(index, 1)
    normal = _own_normals(shapes, offset, own, index)
    scale = np.ascontiguousarray(shapes.scale.astype(np.float32).T).take(index, 1)
    u, v = _coordinates(own * scale, normal / scale)
    facing = np.einsum("ijn,in->jn", frames, normal)
    facing /= np.sqrt(np.einsum("in,in->n", facing, facing))
    slant = -np.einsum("in,in->n", facing, ray) / np.sqrt(np.einsum("in,in->n", ray, ray))
    return Points(position, facing, u, v, np.maximum(slant, np.float32(1e-3)))


def _positions(camera: Camera, hits: Hits) -> tuple[Float, Float]:
    """Ray directions and hit points, both 3xN in world axes."""
    columns, rows = camera.rays((hits.depth.shape[0], hits.depth.shape[1]))
    turn = camera.rotation().astype(np.float32)
    down = turn[:, 1, None] * rows + turn[:, 2, None]
    ray: Float = ((turn[:, 0, None] * columns)[:, None, :] + down[:, :, None]).reshape(3, -1)
    start = np.array(camera.position, np.float32)[:, None]
    return ray, start + ray * hits.depth.ravel()


def _own_normals(
    shapes: Shapes, origin: NDArray[np.float64], own: Float, index: NDArray[np.int32]
) -> Float:
    """3xN normals in own coordinates, of any length.

    A box, or a cylinder's cap, can be hit only on faces that look at the camera; which these
    are is known for the whole shape, so a point on an edge never gets a hidden face's normal.
    """
    kind = shapes.kind[index]
    looks = np.where(np.abs(origin) > 1, np.sign(origin), 0).astype(np.float32)
    looks = np.ascontiguousarray(looks.T).take(index, 1)
    reach = own * looks
    normal = own.copy()
    box = np.flatnonzero(kind == Kind.BOX)
    normal[:, box] = looks[:, box] * (np.arange(3)[:, None] == reach[:, box].argmax(0))
    tube = np.flatnonzero(kind == Kind.CYLINDER)
    cap = reach[1, tube] > 1 - 1e-3
    normal[1, tube] = looks[1, tube] * cap
    normal[::2, tube] *= ~cap
    pill = np.flatnonzero(kind == Kind.CAPSULE)
    length = shapes.length.astype(np.float32)[index[pill]]
    normal[1, pill] -= np.clip(own[1, pill], -length, length)
    return normal


def _coordinates(metres: Float, normal: Float) -> tuple[Float, Float]:
    """The two own coordinates across the normal's main axis: (z, y), (x, z) or (x, y)."""
    axis = np.abs(normal).argmax(0)
    u = np.where(axis == 0, metres[2], metres[0])
    v = np.where(axis == 1, metres[2], metres[1])
    return u, v
