"""Random generation of furnished rooms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from densemtl.data.datasets.synthetic_scenes import groups, walls
from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.fittings import build_pendant
from densemtl.data.datasets.synthetic_scenes.palette import (
    hsv_to_linear_rgb,
    sample_uniform,
    scale_color,
)
from densemtl.data.datasets.synthetic_scenes.plan import WallSegment
from densemtl.data.datasets.synthetic_scenes.primitives import Vector
from densemtl.data.datasets.synthetic_scenes.room import Room, build_shell
from densemtl.data.datasets.synthetic_scenes.scene import Light, Scene

_WALL_FURNITURE: tuple[Callable[[Room, WallSegment], None], ...] = (
    walls.add_sofa,
    walls.add_bed,
    walls.add_cabinet,
    walls.add_shelf,
    walls.add_desk,
)

_FREE_STANDING: tuple[tuple[Callable[[Room], None], float], ...] = (
    (groups.add_dining_group, 0.55),
    (groups.add_coffee_table, 0.25),
    (groups.add_person, 0.5),
    (groups.add_person, 0.3),
    (groups.add_plant, 0.5),
    (groups.add_lamp, 0.45),
    (groups.add_chair, 0.5),
    (groups.add_rug, 0.25),
)
"""Functions that add free-standing objects, with their probabilities, in order of execution."""


def generate_room(rng: np.random.Generator) -> Scene:
    """Generate a furnished room, often with people, with a light and a camera that looks into it.

    Args:
        rng: source of all random choices; the same state results in the same scene.

    Returns:
        The scene.
    """
    size = (
        sample_uniform(rng, 3.4, 5.6),
        sample_uniform(rng, 2.4, 2.9),
        sample_uniform(rng, 3.6, 6.2),
    )
    room = Room(rng, size, _sample_camera(rng, size))
    build_shell(room)
    _furnish_walls(room)
    for add_object, probability in _FREE_STANDING:
        if rng.random() < probability:
            add_object(room)
    for wall in room.plan.walls:
        for _ in range(int(rng.integers(3))):
            walls.add_picture(room, wall)
    light = _sample_light(room)
    return Scene(tuple(room.primitives), light, room.camera, size)


def _sample_camera(rng: np.random.Generator, size: Vector) -> Camera:
    """Sample a camera at eye height near one end of the room that looks at its middle."""
    width, _, depth = size
    x, z = sample_uniform(rng, -0.5, 0.5) * (width - 1.2), sample_uniform(rng, 0.25, 0.6)
    height = sample_uniform(rng, 1.15, 1.75)
    goal = sample_uniform(rng, -0.3, 0.3) * width, sample_uniform(rng, 0.5, 0.8) * depth
    yaw = math.atan2(goal[0] - x, goal[1] - z)
    level = (height - sample_uniform(rng, 0.5, 1.1)) / (goal[1] - z)
    focal = sample_uniform(rng, 0.6, 0.9)
    return Camera((x, -height, z), yaw, -math.atan(level), sample_uniform(rng, -0.04, 0.04), focal)


def _furnish_walls(room: Room) -> None:
    """Add a door and windows first, then furniture in random order at random walls."""
    order = [room.plan.walls[i] for i in room.rng.permutation(3).tolist()]
    walls.add_door(room, order[0])
    for wall in order[1:]:
        if room.rng.random() < 0.6:
            walls.add_window(room, wall)
    for number in room.rng.permutation(len(_WALL_FURNITURE))[
        : int(room.rng.integers(2, 5))
    ].tolist():
        _WALL_FURNITURE[number](room, order[int(room.rng.integers(3))])


def _sample_light(room: Room) -> Light:
    """Sample a lamp below the ceiling, with or without a visible pendant."""
    width, height, depth = room.size
    rng = room.rng
    x, z = sample_uniform(rng, -0.25, 0.25) * width, sample_uniform(rng, 0.4, 0.7) * depth
    drop = sample_uniform(rng, 0.25, 0.5)
    if rng.random() < 0.6:
        build_pendant(room.add_object("lamp", (x, z), casts_shadow=False), rng, height, drop)
    warm = hsv_to_linear_rgb(sample_uniform(rng, 0.05, 0.15), sample_uniform(rng, 0.0, 0.25), 1.0)
    cool = hsv_to_linear_rgb(sample_uniform(rng, 0.5, 0.65), sample_uniform(rng, 0.0, 0.15), 1.0)
    lamp, sky = (
        scale_color(warm, sample_uniform(rng, 0.7, 1.3)),
        scale_color(cool, sample_uniform(rng, 0.35, 0.55)),
    )
    return Light((x, drop - height, z), lamp, sky)
