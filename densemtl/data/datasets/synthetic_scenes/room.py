"""Room under construction, with its objects and its free space."""

from __future__ import annotations

import math

import numpy as np

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.classes import get_class_id
from densemtl.data.datasets.synthetic_scenes.palette import (
    hsv_to_linear_rgb,
    sample_flooring,
    sample_uniform,
    sample_wallpaper,
)
from densemtl.data.datasets.synthetic_scenes.plan import FloorPlan, Rect, WallSegment
from densemtl.data.datasets.synthetic_scenes.primitives import ObjectBuilder, Primitive, Vector
from densemtl.data.datasets.synthetic_scenes.textures import Surface

_WALL_THICKNESS = 0.2
_MAX_TRIES = 12
_WALL_MARGIN = 0.03


class Room:
    """Room to which objects are added.

    Each object has its own instance number; all walls together have the first one. The floor
    directly in front of the camera stays free.

    Args:
        rng: source of all random choices.
        size: (width, height, depth) in meters.
        camera: camera that looks into the room.

    Attributes:
        plan: free space on the floor and the walls.
        primitives: all shapes that were added.
    """

    def __init__(self, rng: np.random.Generator, size: Vector, camera: Camera) -> None:
        self.rng, self.size, self.camera = rng, size, camera
        self.plan = FloorPlan(size)
        self.primitives: list[Primitive] = []
        self._object_count = 0
        for ahead, half in ((0.0, 0.45), (0.6, 0.45), (1.1, 0.3)):
            x, z = self.get_position_ahead(ahead)
            self.plan.floor.occupy(make_square(x, z, half))

    def add_object(
        self,
        name: str,
        position: tuple[float, float],
        yaw: float = 0.0,
        *,
        casts_shadow: bool = True,
        base_height: float = 0.0,
    ) -> ObjectBuilder:
        """Add an object without shapes; shapes that are added to it belong to the room.

        Args:
            name: name of the semantic class.
            position: world (x, z) of its origin in meters.
            yaw: rotation to the right in radians.
            casts_shadow: whether the object casts a shadow.
            base_height: height of the surface on which it stands, in meters.

        Returns:
            The object.
        """
        number, self._object_count = self._object_count, self._object_count + 1
        return ObjectBuilder(
            *position, yaw, get_class_id(name), number, casts_shadow, base_height, self.primitives
        )

    def get_position_ahead(self, distance: float, sideways: float = 0.0) -> tuple[float, float]:
        """Return a position on the floor relative to the camera.

        Args:
            distance: distance along the horizontal viewing direction in meters.
            sideways: distance to the right of it in meters.

        Returns:
            World (x, z) in meters.
        """
        x, _, z = self.camera.position
        cos, sin = math.cos(self.camera.yaw), math.sin(self.camera.yaw)
        return (x + sin * distance + cos * sideways, z + cos * distance - sin * sideways)

    def place_against_wall(
        self, wall: WallSegment, name: str, size: Vector
    ) -> ObjectBuilder | None:
        """Add an object with its back to a wall at a random free position.

        Args:
            wall: the wall.
            name: name of the semantic class.
            size: (width, height, depth) of the object in meters.

        Returns:
            The object without shapes, or None if no free position was found.
        """
        width, height, depth = size
        slack = (wall.length - width) / 2 - _WALL_MARGIN
        for _ in range(_MAX_TRIES if slack > 0 else 0):
            along = sample_uniform(self.rng, -slack, slack)
            front = (along - width / 2, 0.0, along + width / 2, height)
            ground = wall.compute_footprint(along, width, depth + 2 * _WALL_MARGIN)
            if wall.area.is_free(front) and self.plan.floor.is_free(ground):
                wall.area.occupy(front)
                self.plan.floor.occupy(ground)
                return self.add_object(
                    name, wall.to_world_xz(along, depth / 2 + _WALL_MARGIN), wall.yaw
                )
        return None

    def reserve_wall_space(
        self, wall: WallSegment, size: tuple[float, float], bottom: float
    ) -> float | None:
        """Reserve a rectangle on a wall at a random free position.

        Args:
            wall: the wall.
            size: (width, height) of the rectangle in meters.
            bottom: height of its lower edge in meters.

        Returns:
            Position of its middle along the wall in meters, or None if no free position was found.
        """
        width, height = size
        slack = (wall.length - width) / 2 - 0.1
        for _ in range(_MAX_TRIES if slack > 0 else 0):
            along = sample_uniform(self.rng, -slack, slack)
            rect = (along - width / 2, bottom, along + width / 2, bottom + height)
            if wall.area.is_free(rect):
                wall.area.occupy(rect)
                return along
        return None

    def reserve_floor_position(
        self, half_side: float, min_distance: float = 1.3
    ) -> tuple[float, float] | None:
        """Reserve a square of the floor at a random free position that the camera sees.

        Args:
            half_side: half the side of the square in meters.
            min_distance: smallest distance from the camera in meters.

        Returns:
            World (x, z) of its middle, or None if no free position was found.
        """
        spread = 0.42 / self.camera.focal_length
        for _ in range(2 * _MAX_TRIES):
            distance = sample_uniform(self.rng, min_distance, self.size[2])
            x, z = self.get_position_ahead(
                distance, sample_uniform(self.rng, -spread, spread) * distance
            )
            if self.plan.floor.is_free(make_square(x, z, half_side)):
                self.plan.floor.occupy(make_square(x, z, half_side))
                return x, z
        return None


def make_square(x: float, z: float, half_side: float) -> Rect:
    """Return a square around a position.

    Args:
        x: world x of its middle in meters.
        z: world z of its middle in meters.
        half_side: half the side of the square in meters.

    Returns:
        The square.
    """
    return (x - half_side, z - half_side, x + half_side, z + half_side)


def build_shell(room: Room) -> None:
    """Add walls with baseboards, floor and ceiling as slabs around the room.

    Args:
        room: room without shapes.
    """
    width, height, depth = room.size
    wide, long, high = (
        width + 2 * _WALL_THICKNESS,
        depth + 2 * _WALL_THICKNESS,
        height + 2 * _WALL_THICKNESS,
    )
    paper = sample_wallpaper(room.rng)
    ahead = sample_wallpaper(room.rng) if room.rng.random() < 0.3 else paper
    board = Surface(hsv_to_linear_rgb(0.1, 0.05, sample_uniform(room.rng, 0.5, 0.95)))
    walls = room.add_object("wall", (0, 0), casts_shadow=False)
    for side, surface in ((-1, paper), (1, ahead)):
        z = depth / 2 + side * (depth + _WALL_THICKNESS) / 2
        walls.add_box((0, height / 2, z), (wide, high, _WALL_THICKNESS), surface)
    walls.add_box((0, 0.05, depth - 0.0075), (width, 0.1, 0.015), board)
    for side in (-1, 1):
        x = side * (width + _WALL_THICKNESS) / 2
        walls.add_box((x, height / 2, depth / 2), (_WALL_THICKNESS, high, long), paper)
        walls.add_box((side * (width / 2 - 0.0075), 0.05, depth / 2), (0.015, 0.1, depth), board)
    floor = room.add_object("floor", (0, 0), casts_shadow=False)
    floor.add_box(
        (0, -_WALL_THICKNESS / 2, depth / 2),
        (wide, _WALL_THICKNESS, long),
        sample_flooring(room.rng),
    )
    ceiling = room.add_object("ceiling", (0, 0), casts_shadow=False)
    plaster = Surface(
        hsv_to_linear_rgb(
            sample_uniform(room.rng, 0, 1),
            sample_uniform(room.rng, 0, 0.06),
            sample_uniform(room.rng, 0.85, 1),
        )
    )
    ceiling.add_box(
        (0, height + _WALL_THICKNESS / 2, depth / 2), (wide, _WALL_THICKNESS, long), plaster
    )
