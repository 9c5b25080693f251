"""What stands free on the floor: tables with chairs, rugs, lamps, plants and people."""

from __future__ import annotations

import math

from densemtl.data.datasets.synthetic_scenes import furniture
from densemtl.data.datasets.synthetic_scenes.figures import dress, figure, sitting, standing, walking
from densemtl.data.datasets.synthetic_scenes.palette import carpet, pick
from densemtl.data.datasets.synthetic_scenes.primitives import Assembly
from densemtl.data.datasets.synthetic_scenes.room import Room


def add_dining_group(room: Room) -> None:
    """A table with up to four chairs, on a rug now and then, with guests now and then."""
    width, depth = pick(room.rng, 1.1, 1.5), pick(room.rng, 0.75, 0.9)
    place = room.spot(width / 2 + 0.5)
    if place is None:
        return
    table = room.add("table", place, pick(room.rng, -0.25, 0.25))
    furniture.table(table, room.rng, (width, pick(room.rng, 0.71, 0.76), depth))
    for side in (0, 1, 2, 3):
        if room.rng.random() < 0.6:
            _seat(room, table, side, (width if side % 2 else depth) / 2)
    if room.rng.random() < 0.3:
        _rug(room, table.place, table.yaw, (width + 0.7, depth + 1.1))


def _seat(room: Room, table: Assembly, side: int, reach: float) -> None:
    """A chair at one side of a table: pushed in, or pulled out for a guest at a long side."""
    guest = side % 2 == 0 and room.rng.random() < 0.4
    away = reach + (0.5 if guest else pick(room.rng, 0.08, 0.25))
    turn = side * math.pi / 2
    place = table.beside(away * math.sin(turn), away * math.cos(turn))
    seat = pick(room.rng, 0.42, 0.47)
    chair = room.add("chair", place, table.yaw + turn + pick(room.rng, -0.15, 0.15))
    furniture.chair(chair, room.rng, seat)
    if guest:
        sitter = room.add("person", place, chair.yaw)
        figure(sitter, pick(room.rng, 1.5, 1.85), sitting(room.rng), dress(room.rng), seat)


def add_coffee_table(room: Room) -> None:
    """A low table on a rug."""
    width, depth = pick(room.rng, 0.8, 1.2), pick(room.rng, 0.5, 0.7)
    place = room.spot(width / 2 + 0.1)
    if place is None:
        return
    table = room.add("table", place, pick(room.rng, -0.2, 0.2))
    furniture.table(table, room.rng, (width, pick(room.rng, 0.38, 0.46), depth))
    _rug(room, table.place, table.yaw, (width + 0.9, depth + 0.9))


def add_rug(room: Room) -> None:
    """A rug somewhere; things may stand on it."""
    place = room.ahead(pick(room.rng, 1.5, 3.0), pick(room.rng, -0.8, 0.8))
    size = (pick(room.rng, 1.2, 2.2), pick(room.rng, 0.9, 1.6))
    _rug(room, place, pick(room.rng, -0.4, 0.4), size)


def _rug(room: Room, place: tuple[float, float], yaw: float, size: tuple[float, float]) -> None:
    width, depth = size
    cos, sin = abs(math.cos(yaw)) / 2, abs(math.sin(yaw)) / 2
    x, z = width * cos + depth * sin, width * sin + depth * cos
    ground = (place[0] - x, place[1] - z, place[0] + x, place[1] + z)
    if room.plan.rugs.free(ground):
        room.plan.rugs.take(ground)
        it = room.add("rug", place, yaw, shadow=False)
        it.box((0, 0.005, 0), (width, 0.01, depth), carpet(room.rng))


def add_chair(room: Room) -> None:
    """A chair on its own, turned anyhow."""
    place = room.spot(0.35)
    if place is not None:
        it = room.add("chair", place, pick(room.rng, -math.pi, math.pi))
        furniture.chair(it, room.rng, pick(room.rng, 0.42, 0.47))


def add_lamp(room: Room) -> None:
    """A floor lamp."""
    place = room.spot(0.22, nearest=2.0)
    if place is not None:
        furniture.lamp(room.add("lamp", place), room.rng, pick(room.rng, 1.4, 1.75))


def add_plant(room: Room) -> None:
    """A potted plant."""
    height = pick(room.rng, 0.7, 1.5)
    place = room.spot(0.12 + 0.25 * height)
    if place is not None:
        furniture.plant(room.add("plant", place), room.rng, height)


def add_person(room: Room) -> None:
    """Somebody who stands or walks, into the room; one in five is a child."""
    walks = room.rng.random() < 0.4
    place = room.spot(0.5 if walks else 0.4)
    if place is None:
        return
    height = pick(room.rng, 1.05, 1.4) if room.rng.random() < 0.2 else pick(room.rng, 1.55, 1.9)
    goal = pick(room.rng, -0.2, 0.2) * room.size[0], pick(room.rng, 0.3, 0.7) * room.size[2]
    yaw = math.atan2(place[0] - goal[0], place[1] - goal[1])
    posture = walking(room.rng) if walks else standing(room.rng)
    figure(room.add("person", place, yaw), height, posture, dress(room.rng))
