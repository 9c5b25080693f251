"""Free-standing objects on the floor: tables with chairs, rugs, lamps, plants and people."""

from __future__ import annotations

import math

from densemtl.data.datasets.synthetic_scenes import furniture
from densemtl.data.datasets.synthetic_scenes.figures import (
    build_figure,
    sample_clothes,
    sample_sitting_pose,
    sample_standing_pose,
    sample_walking_pose,
)
from densemtl.data.datasets.synthetic_scenes.palette import sample_carpet, sample_uniform
from densemtl.data.datasets.synthetic_scenes.primitives import ObjectBuilder
from densemtl.data.datasets.synthetic_scenes.room import Room


def add_dining_group(room: Room) -> None:
    """Add a table with up to four chairs if there is space, sometimes with a rug and people.

    Args:
        room: room to which the objects are added.
    """
    width, depth = sample_uniform(room.rng, 1.1, 1.5), sample_uniform(room.rng, 0.75, 0.9)
    position = room.reserve_floor_position(width / 2 + 0.5)
    if position is None:
        return
    table = room.add_object("table", position, sample_uniform(room.rng, -0.25, 0.25))
    furniture.build_table(table, room.rng, (width, sample_uniform(room.rng, 0.71, 0.76), depth))
    for side in (0, 1, 2, 3):
        if room.rng.random() < 0.6:
            _add_seat(room, table, side, (width if side % 2 else depth) / 2)
    if room.rng.random() < 0.3:
        _add_rug_at(room, table.position, table.yaw, (width + 0.7, depth + 1.1))


def _add_seat(room: Room, table: ObjectBuilder, side: int, edge_distance: float) -> None:
    """Add a chair at one side of a table; at a long side it may be pulled out for a person."""
    guest = side % 2 == 0 and room.rng.random() < 0.4
    away = edge_distance + (0.5 if guest else sample_uniform(room.rng, 0.08, 0.25))
    turn = side * math.pi / 2
    position = table.to_world_xz(away * math.sin(turn), away * math.cos(turn))
    seat = sample_uniform(room.rng, 0.42, 0.47)
    chair = room.add_object(
        "chair", position, table.yaw + turn + sample_uniform(room.rng, -0.15, 0.15)
    )
    furniture.build_chair(chair, room.rng, seat)
    if guest:
        sitter = room.add_object("person", position, chair.yaw)
        build_figure(
            sitter,
            sample_uniform(room.rng, 1.5, 1.85),
            sample_sitting_pose(room.rng),
            sample_clothes(room.rng),
            seat,
        )


def add_coffee_table(room: Room) -> None:
    """Add a low table on a rug if there is space.

    Args:
        room: room to which the objects are added.
    """
    width, depth = sample_uniform(room.rng, 0.8, 1.2), sample_uniform(room.rng, 0.5, 0.7)
    position = room.reserve_floor_position(width / 2 + 0.1)
    if position is None:
        return
    table = room.add_object("table", position, sample_uniform(room.rng, -0.2, 0.2))
    furniture.build_table(table, room.rng, (width, sample_uniform(room.rng, 0.38, 0.46), depth))
    _add_rug_at(room, table.position, table.yaw, (width + 0.9, depth + 0.9))


def add_rug(room: Room) -> None:
    """Add a rug on which objects may stand, if it overlaps no other rug.

    Args:
        room: room to which the objects are added.
    """
    position = room.get_position_ahead(
        sample_uniform(room.rng, 1.5, 3.0), sample_uniform(room.rng, -0.8, 0.8)
    )
    size = (sample_uniform(room.rng, 1.2, 2.2), sample_uniform(room.rng, 0.9, 1.6))
    _add_rug_at(room, position, sample_uniform(room.rng, -0.4, 0.4), size)


def _add_rug_at(
    room: Room, position: tuple[float, float], yaw: float, size: tuple[float, float]
) -> None:
    width, depth = size
    cos, sin = abs(math.cos(yaw)) / 2, abs(math.sin(yaw)) / 2
    x, z = width * cos + depth * sin, width * sin + depth * cos
    ground = (position[0] - x, position[1] - z, position[0] + x, position[1] + z)
    if room.plan.rugs.is_free(ground):
        room.plan.rugs.occupy(ground)
        rug = room.add_object("rug", position, yaw, casts_shadow=False)
        rug.add_box((0, 0.005, 0), (width, 0.01, depth), sample_carpet(room.rng))


def add_chair(room: Room) -> None:
    """Add a single chair with a random orientation if there is space.

    Args:
        room: room to which the objects are added.
    """
    position = room.reserve_floor_position(0.35)
    if position is not None:
        chair = room.add_object("chair", position, sample_uniform(room.rng, -math.pi, math.pi))
        furniture.build_chair(chair, room.rng, sample_uniform(room.rng, 0.42, 0.47))


def add_lamp(room: Room) -> None:
    """Add a floor lamp if there is space.

    Args:
        room: room to which the objects are added.
    """
    position = room.reserve_floor_position(0.22, min_distance=2.0)
    if position is not None:
        furniture.build_lamp(
            room.add_object("lamp", position), room.rng, sample_uniform(room.rng, 1.4, 1.75)
        )


def add_plant(room: Room) -> None:
    """Add a potted plant if there is space.

    Args:
        room: room to which the objects are added.
    """
    height = sample_uniform(room.rng, 0.7, 1.5)
    position = room.reserve_floor_position(0.12 + 0.25 * height)
    if position is not None:
        furniture.build_plant(room.add_object("plant", position), room.rng, height)


def add_person(room: Room) -> None:
    """Add a person who stands or walks into the room, if there is space; one in five is a child.

    Args:
        room: room to which the objects are added.
    """
    is_walking = room.rng.random() < 0.4
    position = room.reserve_floor_position(0.5 if is_walking else 0.4)
    if position is None:
        return
    height = (
        sample_uniform(room.rng, 1.05, 1.4)
        if room.rng.random() < 0.2
        else sample_uniform(room.rng, 1.55, 1.9)
    )
    goal = (
        sample_uniform(room.rng, -0.2, 0.2) * room.size[0],
        sample_uniform(room.rng, 0.3, 0.7) * room.size[2],
    )
    yaw = math.atan2(position[0] - goal[0], position[1] - goal[1])
    posture = sample_walking_pose(room.rng) if is_walking else sample_standing_pose(room.rng)
    build_figure(
        room.add_object("person", position, yaw), height, posture, sample_clothes(room.rng)
    )
