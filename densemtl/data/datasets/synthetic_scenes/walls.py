"""What hangs on the walls and stands against them."""

from __future__ import annotations

from densemtl.data.datasets.synthetic_scenes import fittings, furniture
from densemtl.data.datasets.synthetic_scenes.figures import dress, figure, sitting
from densemtl.data.datasets.synthetic_scenes.palette import pick
from densemtl.data.datasets.synthetic_scenes.plan import Wall
from densemtl.data.datasets.synthetic_scenes.room import Room


def add_door(room: Room, wall: Wall) -> None:
    """A door, if the wall has space; the floor in front of it stays free."""
    width = pick(room.rng, 0.75, 0.95)
    along = room.hang(wall, (width + 0.2, 2.2), 0.0)
    if along is not None:
        room.plan.floor.take(wall.footprint(along, width, 0.7))
        fittings.door(room.add("door", wall.at(along, 0), wall.yaw), room.rng, width)


def add_window(room: Room, wall: Wall) -> None:
    """A window, if the wall has space."""
    sill = pick(room.rng, 0.75, 1.05)
    size = (pick(room.rng, 0.8, 1.8), room.size[1] - sill - pick(room.rng, 0.25, 0.5))
    along = room.hang(wall, (size[0] + 0.2, size[1] + 0.1), sill - 0.05)
    if along is not None:
        it = room.add("window", wall.at(along, 0), wall.yaw, shadow=False)
        fittings.window(it, room.rng, sill, size)


def add_picture(room: Room, wall: Wall) -> None:
    """A painting, if the wall has space."""
    size = (pick(room.rng, 0.35, 1.1), pick(room.rng, 0.35, 0.8))
    middle = pick(room.rng, 1.45, 1.75)
    along = room.hang(wall, (size[0] + 0.15, size[1] + 0.15), middle - size[1] / 2 - 0.05)
    if along is not None:
        it = room.add("picture", wall.at(along, 0), wall.yaw, shadow=False)
        fittings.picture(it, room.rng, middle, size)


def add_sofa(room: Room, wall: Wall) -> None:
    """A sofa, now and then with somebody on it."""
    width = pick(room.rng, 1.5, 2.2)
    it = room.stand(wall, "sofa", (width, 0.85, 0.92))
    if it is None:
        return
    furniture.sofa(it, room.rng, width)
    if room.rng.random() < 0.35:
        place = it.beside(pick(room.rng, -0.25, 0.25) * width, -0.08)
        guest = room.add("person", place, it.yaw + pick(room.rng, -0.15, 0.15))
        height = pick(room.rng, 1.5, 1.85)
        figure(guest, height, sitting(room.rng), dress(room.rng), seat=0.42)


def add_bed(room: Room, wall: Wall) -> None:
    """A bed, single or double."""
    width = pick(room.rng, 0.95, 1.6)
    it = room.stand(wall, "bed", (width + 0.08, 1.05, 2.04))
    if it is not None:
        furniture.bed(it, room.rng, width)


def add_cabinet(room: Room, wall: Wall) -> None:
    """A sideboard or a wardrobe."""
    tall = room.rng.random() < 0.35
    height = pick(room.rng, 1.7, 2.1) if tall else pick(room.rng, 0.7, 1.05)
    size = (pick(room.rng, 0.7, 1.5), height, pick(room.rng, 0.4, 0.55))
    it = room.stand(wall, "cabinet", size)
    if it is not None:
        furniture.cabinet(it, room.rng, size)
        add_ornament(room, it.beside(pick(room.rng, -0.3, 0.3) * size[0], 0.0), height)


def add_shelf(room: Room, wall: Wall) -> None:
    """A case with books."""
    size = (pick(room.rng, 0.6, 1.1), pick(room.rng, 0.9, 1.9), pick(room.rng, 0.28, 0.36))
    it = room.stand(wall, "cabinet", size)
    if it is not None:
        furniture.shelf(it, room.rng, size)


def add_desk(room: Room, wall: Wall) -> None:
    """A table against the wall with a chair before it."""
    width, depth = pick(room.rng, 1.0, 1.5), pick(room.rng, 0.55, 0.7)
    it = room.stand(wall, "table", (width, 0.76, depth + 0.6))
    if it is None:
        return
    desk = room.add("table", it.beside(0, 0.3), it.yaw)
    top = pick(room.rng, 0.7, 0.76)
    furniture.table(desk, room.rng, (width, top, depth))
    add_ornament(room, desk.beside(pick(room.rng, -0.35, 0.35) * width, 0.1), top)
    place = it.beside(pick(room.rng, -0.15, 0.15), pick(room.rng, -0.05, 0.1) - depth / 2)
    chair = room.add("chair", place, it.yaw + 3.14 + pick(room.rng, -0.3, 0.3))
    furniture.chair(chair, room.rng, pick(room.rng, 0.42, 0.47))


def add_ornament(room: Room, place: tuple[float, float], level: float) -> None:
    """Now and then a small lamp or plant on a piece of furniture."""
    if room.rng.random() < 0.5 or level > 1.2:
        return
    if room.rng.random() < 0.5:
        furniture.lamp(room.add("lamp", place, level=level), room.rng, pick(room.rng, 0.4, 0.55))
    else:
        furniture.plant(room.add("plant", place, level=level), room.rng, pick(room.rng, 0.3, 0.5))
