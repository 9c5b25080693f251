"""Scene and camera in, picture and exact measurements out."""

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
    """What a camera sees; all but the image is exact and free of noise.

    Attributes:
        image: HxWx3 uint8 RGB.
        depth: HxW float32, z along the optical axis in metres.
        normals: HxWx3 float32 unit vectors in camera axes (x right, y down, z forward).
        semseg: HxW uint8 semantic class.
        instance: HxW uint8 number of the object; the shell's walls are one object.
        parts: HxW uint8 human part, 0 outside people.
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
        scene: what to draw; the shell must be closed around the camera.
        camera: from where; `scene.camera` is a good choice.
        size: (height, width).
        rng: source of the image's sensor noise; None for none.
    """
    shapes = ShapeArrays.from_primitives(scene.primitives)
    hits = trace_rays(shapes, camera, size)
    points = compute_surface_points(shapes, camera, hits)
    index = hits.shape_index.ravel()
    footprint = hits.depth.ravel() / (camera.focal_length * size[1]) / points.incidence_cosine
    colour = compute_reflectance(scene.primitives, points, index, footprint)
    glow = np.array([p.surface.emission for p in scene.primitives], np.float32)[index]
    radiance = colour * (compute_illumination(scene, points) * (1 - glow) + glow)
    owners = np.array([(p.label, p.instance, p.part) for p in scene.primitives], np.uint8)
    semseg, instance, parts = np.moveaxis(owners[hits.shape_index], 2, 0)
    image = simulate_sensor(radiance.T.reshape(*size, 3), find_id_borders(hits.shape_index), rng)
    normals = (camera.compute_rotation().T.astype(np.float32) @ points.normal).T.reshape(*size, 3)
    return RenderedScene(image, hits.depth, normals, semseg, instance, parts)


def find_id_borders(ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """HxW mask of the pixels whose id differs from the east, south or south-east neighbour's."""
    padded = np.pad(ids, ((0, 1), (0, 1)), mode="edge")
    east, south, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (ids != east) | (ids != south) | (ids != diagonal)
