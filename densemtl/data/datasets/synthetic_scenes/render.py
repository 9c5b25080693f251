"""Rendering of a scene: an image and exact depth, normals and ids of what a camera sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.light import (
    compute_illumination,
    compute_reflectance,
    simulate_sensor,
)
from densemtl.data.datasets.synthetic_scenes.scene import Scene, ShapeArrays
from densemtl.data.datasets.synthetic_scenes.surface import compute_surface_points
from densemtl.data.datasets.synthetic_scenes.trace import trace_rays
from densemtl.types import Size


@dataclass(frozen=True)
class RenderedScene:
    """Rendered image and its labels, which are exact and free of noise.

    Attributes:
        image: RGB image, shape (H, W, 3), uint8.
        depth: z along the optical axis in meters, shape (H, W), float32.
        normals: unit vectors in camera axes (x right, y down, z forward), shape (H, W, 3), float32.
        semseg: ids of semantic classes, shape (H, W), uint8.
        instance: numbers of objects, shape (H, W), uint8; the walls are one object.
        parts: ids of human parts, shape (H, W), uint8; 0 outside people.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    semseg: NDArray[np.uint8]
    instance: NDArray[np.uint8]
    parts: NDArray[np.uint8]


def render(
    scene: Scene, camera: Camera, size: Size, rng: np.random.Generator | None = None
) -> RenderedScene:
    """Render a scene from inside its room.

    Args:
        scene: scene; its walls, floor and ceiling must enclose the camera.
        camera: camera inside the room, such as `scene.camera`.
        size: (height, width) of the image in pixels.
        rng: source of sensor noise; None for an image without noise.

    Returns:
        The image and its labels.
    """
    shapes = ShapeArrays.from_primitives(scene.primitives)
    hits = trace_rays(shapes, camera, size)
    points = compute_surface_points(shapes, camera, hits)
    index = hits.shape_index.ravel()
    footprint = hits.depth.ravel() / (camera.focal_length * size[1]) / points.incidence_cosine
    reflectance = compute_reflectance(scene.primitives, points, index, footprint)
    glow = np.array([p.surface.emission for p in scene.primitives], np.float32)[index]
    radiance = reflectance * (compute_illumination(scene, points) * (1 - glow) + glow)
    owners = np.array([(p.label, p.instance, p.part) for p in scene.primitives], np.uint8)
    semseg, instance, parts = np.moveaxis(owners[hits.shape_index], 2, 0)
    image = simulate_sensor(radiance.T.reshape(*size, 3), find_id_borders(hits.shape_index), rng)
    normals = (camera.compute_rotation().T.astype(np.float32) @ points.normal).T.reshape(*size, 3)
    return RenderedScene(image, hits.depth, normals, semseg, instance, parts)


def find_id_borders(ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Find the pixels whose id differs from that of the right, lower or lower right neighbor.

    Args:
        ids: integer ids, shape (H, W).

    Returns:
        Mask, shape (H, W).
    """
    padded = np.pad(ids, ((0, 1), (0, 1)), mode="edge")
    east, south, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    borders: NDArray[np.bool_] = (ids != east) | (ids != south) | (ids != diagonal)
    return borders
