"""A room under construction: what stands in it so far and where there is still space."""

from __future__ import annotations

import math

import numpy as np

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.classes import class_id
from densemtl.data.datasets.synthetic_scenes.palette import flooring, hsv, pick, wallpaper
from densemtl.data.datasets.synthetic_scenes.plan import Plan, Rect, Wall
from densemtl.data.datasets.synthetic_scenes.primitives import Assembly, Primitive, Vector
from densemtl.data.datasets.synthetic_scenes.textures import Surface

_THICK = 0.2
_TRIES = 12
_MARGIN = 0.03


class Room:
    """Objects of a room; each gets its own instance number, the walls together the first.

    Attributes:
        rng: source of all choices.
        size: (width, height, depth) in metres.
        camera: from where it will be seen; nothing is put right in front of it.
        plan: free space on the floor and the walls.
        primitives: all shapes so far.
    """

    def __init__(self, rng: np.random.Generator, size: Vector, camera: Camera) -> None:
        self.rng, self.size, self.camera = rng, size, camera
        self.plan = Plan(size)
        self.primitives: list[Primitive] = []
        self._objects = 0
        for ahead, half in ((0.0, 0.45), (0.6, 0.45), (1.1, 0.3)):
            x, z = self.ahead(ahead)
            self.plan.floor.take(square(x, z, half))

    def add(
        self,
        name: str,
        place: tuple[float, float],
        yaw: float = 0.0,
        *,
        shadow: bool = True,
        level: float = 0.0,
    ) -> Assembly:
        """A new object of a class at (x, z); what is built in it belongs to the room."""
        number, self._objects = self._objects, self._objects + 1
        return Assembly(*place, yaw, class_id(name), number, shadow, level, self.primitives)

    def ahead(self, distance: float, aside: float = 0.0) -> tuple[float, float]:
        """(x, z) of the floor at a distance along the camera's view and to the right of it."""
        x, _, z = self.camera.position
        cos, sin = math.cos(self.camera.yaw), math.sin(self.camera.yaw)
        return (x + sin * distance + cos * aside, z + cos * distance - sin * aside)

    def stand(self, wall: Wall, name: str, size: Vector) -> Assembly | None:
        """A new object with its back to a wall, if a place for (width, height, depth) is found."""
        width, height, depth = size
        slack = (wall.length - width) / 2 - _MARGIN
        for _ in range(_TRIES if slack > 0 else 0):
            along = pick(self.rng, -slack, slack)
            front = (along - width / 2, 0.0, along + width / 2, height)
            ground = wall.footprint(along, width, depth + 2 * _MARGIN)
            if wall.area.free(front) and self.plan.floor.free(ground):
                wall.area.take(front)
                self.plan.floor.take(ground)
                return self.add(name, wall.at(along, depth / 2 + _MARGIN), wall.yaw)
        return None

    def hang(self, wall: Wall, size: tuple[float, float], low: float) -> float | None:
        """Take (width, height) of a wall from a height upwards; where along the wall, if free."""
        width, height = size
        slack = (wall.length - width) / 2 - 0.1
        for _ in range(_TRIES if slack > 0 else 0):
            along = pick(self.rng, -slack, slack)
            rect = (along - width / 2, low, along + width / 2, low + height)
            if wall.area.free(rect):
                wall.area.take(rect)
                return along
        return None

    def spot(self, half: float, nearest: float = 1.3) -> tuple[float, float] | None:
        """Take a free square of the floor that the camera sees; its middle (x, z), if any."""
        spread = 0.42 / self.camera.focal
        for _ in range(2 * _TRIES):
            distance = pick(self.rng, nearest, self.size[2])
            x, z = self.ahead(distance, pick(self.rng, -spread, spread) * distance)
            if self.plan.floor.free(square(x, z, half)):
                self.plan.floor.take(square(x, z, half))
                return x, z
        return None


def square(x: float, z: float, half: float) -> Rect:
    """The square of a half side length about a place."""
    return (x - half, z - half, x + half, z + half)


def build_shell(room: Room) -> None:
    """Walls with skirting boards, floor and ceiling, as slabs around the room."""
    width, height, depth = room.size
    wide, long, high = width + 2 * _THICK, depth + 2 * _THICK, height + 2 * _THICK
    paper = wallpaper(room.rng)
    ahead = wallpaper(room.rng) if room.rng.random() < 0.3 else paper
    board = Surface(hsv(0.1, 0.05, pick(room.rng, 0.5, 0.95)))
    walls = room.add("wall", (0, 0), shadow=False)
    for side, surface in ((-1, paper), (1, ahead)):
        z = depth / 2 + side * (depth + _THICK) / 2
        walls.box((0, height / 2, z), (wide, high, _THICK), surface)
    walls.box((0, 0.05, depth - 0.0075), (width, 0.1, 0.015), board)
    for side in (-1, 1):
        x = side * (width + _THICK) / 2
        walls.box((x, height / 2, depth / 2), (_THICK, high, long), paper)
        walls.box((side * (width / 2 - 0.0075), 0.05, depth / 2), (0.015, 0.1, depth), board)
    floor = room.add("floor", (0, 0), shadow=False)
    floor.box((0, -_THICK / 2, depth / 2), (wide, _THICK, long), flooring(room.rng))
    ceiling = room.add("ceiling", (0, 0), shadow=False)
    plaster = Surface(hsv(pick(room.rng, 0, 1), pick(room.rng, 0, 0.06), pick(room.rng, 0.85, 1)))
    ceiling.box((0, height + _THICK / 2, depth / 2), (wide, _THICK, long), plaster)
