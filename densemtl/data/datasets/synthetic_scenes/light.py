"""Light, shadow and the sensor: from surface points to a picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.primitives import Primitive
from densemtl.data.datasets.synthetic_scenes.scene import Scene, ShapeArrays
from densemtl.data.datasets.synthetic_scenes.surface import SurfacePoints
from densemtl.data.datasets.synthetic_scenes.textures import Pattern, compute_accent_weight
from densemtl.data.datasets.synthetic_scenes.trace import trace_rays
from densemtl.types import Size

FloatArray = NDArray[np.float32]

_SHADOW_SIZE = (160, 160)
_SHADOW_FOCAL_LENGTH = 0.25
_SHADOW_BIAS = 0.06


def compute_reflectance(
    primitives: tuple[Primitive, ...],
    points: SurfacePoints,
    index: NDArray[np.int32],
    footprint: FloatArray,
) -> FloatArray:
    """3xN colours of surface points; `footprint` is a pixel's extent on the surface in metres."""
    surfaces = [primitive.surface for primitive in primitives]
    colour = np.array([s.color for s in surfaces], np.float32).T.take(index, 1)
    accent = np.array([s.accent_color for s in surfaces], np.float32).T
    period = np.array([s.period for s in surfaces], np.float32)
    pattern = np.array([s.pattern for s in surfaces])[index]
    for which in np.unique(pattern[pattern != Pattern.PLAIN]).tolist():
        at = np.flatnonzero(pattern == which)
        unit = period[index[at]]
        u, v = points.u[at] / unit, points.v[at] / unit
        share = compute_accent_weight(Pattern(which), u, v, footprint[at] / unit)
        colour[:, at] += (accent.take(index[at], 1) - colour[:, at]) * share
    return colour


def compute_illumination(scene: Scene, points: SurfacePoints) -> FloatArray:
    """3xN light that arrives: ambient, dimmed towards the room's edges, and the lamp's."""
    light = scene.light
    away = np.array(light.position, np.float32)[:, None] - points.position
    squared = np.einsum("in,in->n", away, away)
    lambert = np.einsum("in,in->n", away, points.normal) / np.sqrt(squared)
    lamp = np.maximum(lambert, 0) * _compute_shadow_mask(scene, points) / (1 + squared / 12)
    sky = _compute_ambient_occlusion(scene, points) * (1 - 0.15 * points.normal[1])
    ambient = np.array(light.ambient, np.float32)[:, None] * sky
    return ambient + np.array(light.color, np.float32)[:, None] * lamp


def _compute_ambient_occlusion(scene: Scene, points: SurfacePoints) -> FloatArray:
    """Rough ambient occlusion: corners of the room are darker."""
    width, height, depth = scene.room_size
    x, y, z = points.position
    nx, ny, nz = np.abs(points.normal)
    side = (1 - nx) * np.exp((np.abs(x) - width / 2) * 4)
    level = (1 - ny) * np.exp(-4 * np.minimum(-y, y + height))
    end = (1 - nz) * np.exp((z - depth) * 4)
    return (1 - 0.35 * side) * (1 - 0.35 * level) * (1 - 0.35 * end)


def _compute_shadow_mask(scene: Scene, points: SurfacePoints) -> FloatArray:
    """Share of the lamp that reaches each point, from a depth map seen by the lamp."""
    casting = tuple(p for p in scene.primitives if p.casts_shadow)
    if not casting:
        return np.ones(points.u.shape, np.float32)
    eye = Camera(scene.light.position, pitch=-math.pi / 2, focal_length=_SHADOW_FOCAL_LENGTH)
    depth = trace_rays(ShapeArrays.from_primitives(casting), eye, _SHADOW_SIZE).depth
    offset = points.position + np.float32(_SHADOW_BIAS / 2) * points.normal
    lamp_to_point = offset - np.array(eye.position, np.float32)[:, None]
    x, y, z = np.einsum("ji,jn->in", eye.compute_rotation().astype(np.float32), lamp_to_point)
    below = np.maximum(z, np.float32(0.05))
    scale = np.float32(_SHADOW_FOCAL_LENGTH * _SHADOW_SIZE[1])
    column = np.clip(x / below * scale + (_SHADOW_SIZE[1] / 2 - 0.5), 0, _SHADOW_SIZE[1] - 1.001)
    row = np.clip(y / below * scale + (_SHADOW_SIZE[0] / 2 - 0.5), 0, _SHADOW_SIZE[0] - 1.001)
    return np.where(
        z > 0.05, _compare_depth_bilinear(depth, column, row, z - np.float32(_SHADOW_BIAS)), 1
    )


def _compare_depth_bilinear(
    depth: FloatArray, column: FloatArray, row: FloatArray, limit: FloatArray
) -> FloatArray:
    """Bilinear mean of `depth >= limit` over the four texels around each place."""
    left, top = column.astype(np.int32), row.astype(np.int32)
    right, down = column - left, row - top
    start = top * depth.shape[1] + left
    flat = depth.ravel()
    lit = [flat[start + step] >= limit for step in (0, 1, depth.shape[1], depth.shape[1] + 1)]
    upper = lit[0] * (1 - right) + lit[1] * right
    lower = lit[2] * (1 - right) + lit[3] * right
    return upper * (1 - down) + lower * down


def simulate_sensor(
    radiance: FloatArray, edges: NDArray[np.bool_], rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    """HxWx3 linear light to 8 bits: lens, vignetting, tone curve and, given `rng`, noise."""
    size = (radiance.shape[0], radiance.shape[1])
    soft = cv2.GaussianBlur(radiance, (3, 3), 0.7)
    picture = np.where(edges[:, :, None], soft, radiance) * _compute_vignette(size)[:, :, None]
    picture = np.sqrt(np.clip(picture, 0, 1))
    if rng is not None:
        picture += np.float32(0.012) * rng.standard_normal(picture.shape, np.float32)
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def _compute_vignette(size: Size) -> FloatArray:
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    return 1 - np.float32(0.15) * (y[:, None] ** 2 + x[None, :] ** 2)
