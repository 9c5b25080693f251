"""Illumination, shadows and the camera sensor: from surface points to an image."""

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
    """Compute the reflectance of surface points.

    Args:
        primitives: shapes of the scene.
        points: N surface points.
        index: index of the primitive of each point, shape (N,).
        footprint: extent of a pixel on the surface in meters, shape (N,).

    Returns:
        Linear RGB reflectance, shape (3, N).
    """
    surfaces = [primitive.surface for primitive in primitives]
    color = np.array([s.color for s in surfaces], np.float32).T.take(index, 1)
    accent = np.array([s.accent_color for s in surfaces], np.float32).T
    period = np.array([s.period for s in surfaces], np.float32)
    pattern = np.array([s.pattern for s in surfaces])[index]
    for pattern_id in np.unique(pattern[pattern != Pattern.PLAIN]).tolist():
        at = np.flatnonzero(pattern == pattern_id)
        unit = period[index[at]]
        u, v = points.u[at] / unit, points.v[at] / unit
        weight = compute_accent_weight(Pattern(pattern_id), u, v, footprint[at] / unit)
        color[:, at] += (accent.take(index[at], 1) - color[:, at]) * weight
    return color


def compute_illumination(scene: Scene, points: SurfacePoints) -> FloatArray:
    """Compute the light that arrives at surface points.

    It is the sum of the light of the lamp and of ambient light, which is darker near the edges of
    the room.

    Args:
        scene: scene with its light.
        points: N surface points.

    Returns:
        Linear RGB light, shape (3, N).
    """
    light = scene.light
    away = np.array(light.position, np.float32)[:, None] - points.position
    squared = np.einsum("in,in->n", away, away)
    lambert = np.einsum("in,in->n", away, points.normal) / np.sqrt(squared)
    lamp = np.maximum(lambert, 0) * _compute_shadow_mask(scene, points) / (1 + squared / 12)
    sky = _compute_ambient_occlusion(scene, points) * (1 - 0.15 * points.normal[1])
    ambient = np.array(light.ambient, np.float32)[:, None] * sky
    illumination: FloatArray = ambient + np.array(light.color, np.float32)[:, None] * lamp
    return illumination


def _compute_ambient_occlusion(scene: Scene, points: SurfacePoints) -> FloatArray:
    """Return approximate ambient occlusion in [0, 1], which darkens the corners of the room."""
    width, height, depth = scene.room_size
    x, y, z = points.position
    nx, ny, nz = np.abs(points.normal)
    side = (1 - nx) * np.exp((np.abs(x) - width / 2) * 4)
    level = (1 - ny) * np.exp(-4 * np.minimum(-y, y + height))
    end = (1 - nz) * np.exp((z - depth) * 4)
    openness: FloatArray = (1 - 0.35 * side) * (1 - 0.35 * level) * (1 - 0.35 * end)
    return openness


def _compute_shadow_mask(scene: Scene, points: SurfacePoints) -> FloatArray:
    """Return the fraction of the lamp light that reaches each point, from a shadow map."""
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
    """Return the bilinear mean of `depth >= limit` over the four texels around each position."""
    left, top = column.astype(np.int32), row.astype(np.int32)
    right, down = column - left, row - top
    start = top * depth.shape[1] + left
    flat = depth.ravel()
    lit = [flat[start + step] >= limit for step in (0, 1, depth.shape[1], depth.shape[1] + 1)]
    upper = lit[0] * (1 - right) + lit[1] * right
    lower = lit[2] * (1 - right) + lit[3] * right
    fraction: FloatArray = upper * (1 - down) + lower * down
    return fraction


def simulate_sensor(
    radiance: FloatArray, edges: NDArray[np.bool_], rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    """Convert linear light to an 8-bit image: lens blur, vignetting, tone curve and noise.

    Args:
        radiance: linear RGB light, shape (H, W, 3).
        edges: mask of the pixels that are blurred by the lens, shape (H, W).
        rng: source of sensor noise; None for an image without noise.

    Returns:
        RGB image, shape (H, W, 3), uint8.
    """
    size = (radiance.shape[0], radiance.shape[1])
    soft = cv2.GaussianBlur(radiance, (3, 3), 0.7)
    picture = np.where(edges[:, :, None], soft, radiance) * _compute_vignette(size)[:, :, None]
    picture = np.sqrt(np.clip(picture, 0, 1))
    if rng is not None:
        picture += np.float32(0.012) * rng.standard_normal(picture.shape, np.float32)
    image: NDArray[np.uint8] = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
    return image


def _compute_vignette(size: Size) -> FloatArray:
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
    return 1 - np.float32(0.15) * (y[:, None] ** 2 + x[None, :] ** 2)
