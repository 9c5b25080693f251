"""Objects on the walls and against them."""

from __future__ import annotations

from densemtl.data.datasets.synthetic_scenes import fittings, furniture
from densemtl.data.datasets.synthetic_scenes.figures import (
    build_figure,
    sample_clothes,
    sample_sitting_pose,
)
from densemtl.data.datasets.synthetic_scenes.palette import sample_uniform
from densemtl.data.datasets.synthetic_scenes.plan import WallSegment
from densemtl.data.datasets.synthetic_scenes.room import Room


def add_door(room: Room, wall: WallSegment) -> None:
    """Add a door if the wall has space; the floor in front of it stays free.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    width = sample_uniform(room.rng, 0.75, 0.95)
    along = room.reserve_wall_space(wall, (width + 0.2, 2.2), 0.0)
    if along is not None:
        room.plan.floor.occupy(wall.compute_footprint(along, width, 0.7))
        fittings.build_door(
            room.add_object("door", wall.to_world_xz(along, 0), wall.yaw), room.rng, width
        )


def add_window(room: Room, wall: WallSegment) -> None:
    """Add a window if the wall has space.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    sill = sample_uniform(room.rng, 0.75, 1.05)
    size = (
        sample_uniform(room.rng, 0.8, 1.8),
        room.size[1] - sill - sample_uniform(room.rng, 0.25, 0.5),
    )
    along = room.reserve_wall_space(wall, (size[0] + 0.2, size[1] + 0.1), sill - 0.05)
    if along is not None:
        window = room.add_object("window", wall.to_world_xz(along, 0), wall.yaw, casts_shadow=False)
        fittings.build_window(window, room.rng, sill, size)


def add_picture(room: Room, wall: WallSegment) -> None:
    """Add a painting if the wall has space.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    size = (sample_uniform(room.rng, 0.35, 1.1), sample_uniform(room.rng, 0.35, 0.8))
    middle = sample_uniform(room.rng, 1.45, 1.75)
    along = room.reserve_wall_space(
        wall, (size[0] + 0.15, size[1] + 0.15), middle - size[1] / 2 - 0.05
    )
    if along is not None:
        picture = room.add_object(
            "picture", wall.to_world_xz(along, 0), wall.yaw, casts_shadow=False
        )
        fittings.build_picture(picture, room.rng, middle, size)


def add_sofa(room: Room, wall: WallSegment) -> None:
    """Add a sofa, sometimes with a sitting person, if there is space.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    width = sample_uniform(room.rng, 1.5, 2.2)
    sofa = room.place_against_wall(wall, "sofa", (width, 0.85, 0.92))
    if sofa is None:
        return
    furniture.build_sofa(sofa, room.rng, width)
    if room.rng.random() < 0.35:
        position = sofa.to_world_xz(sample_uniform(room.rng, -0.25, 0.25) * width, -0.08)
        guest = room.add_object(
            "person", position, sofa.yaw + sample_uniform(room.rng, -0.15, 0.15)
        )
        height = sample_uniform(room.rng, 1.5, 1.85)
        build_figure(
            guest, height, sample_sitting_pose(room.rng), sample_clothes(room.rng), seat_height=0.42
        )


def add_bed(room: Room, wall: WallSegment) -> None:
    """Add a single or double bed if there is space.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    width = sample_uniform(room.rng, 0.95, 1.6)
    bed = room.place_against_wall(wall, "bed", (width + 0.08, 1.05, 2.04))
    if bed is not None:
        furniture.build_bed(bed, room.rng, width)


def add_cabinet(room: Room, wall: WallSegment) -> None:
    """Add a sideboard or a wardrobe if there is space.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    tall = room.rng.random() < 0.35
    height = sample_uniform(room.rng, 1.7, 2.1) if tall else sample_uniform(room.rng, 0.7, 1.05)
    size = (sample_uniform(room.rng, 0.7, 1.5), height, sample_uniform(room.rng, 0.4, 0.55))
    cabinet = room.place_against_wall(wall, "cabinet", size)
    if cabinet is not None:
        furniture.build_cabinet(cabinet, room.rng, size)
        add_ornament(
            room, cabinet.to_world_xz(sample_uniform(room.rng, -0.3, 0.3) * size[0], 0.0), height
        )


def add_shelf(room: Room, wall: WallSegment) -> None:
    """Add a bookshelf if there is space.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    size = (
        sample_uniform(room.rng, 0.6, 1.1),
        sample_uniform(room.rng, 0.9, 1.9),
        sample_uniform(room.rng, 0.28, 0.36),
    )
    shelf = room.place_against_wall(wall, "cabinet", size)
    if shelf is not None:
        furniture.build_shelf(shelf, room.rng, size)


def add_desk(room: Room, wall: WallSegment) -> None:
    """Add a desk against the wall with a chair in front of it, if there is space.

    Args:
        room: room to which the objects are added.
        wall: the wall.
    """
    width, depth = sample_uniform(room.rng, 1.0, 1.5), sample_uniform(room.rng, 0.55, 0.7)
    wall_space = room.place_against_wall(wall, "table", (width, 0.76, depth + 0.6))
    if wall_space is None:
        return
    desk = room.add_object("table", wall_space.to_world_xz(0, 0.3), wall_space.yaw)
    top = sample_uniform(room.rng, 0.7, 0.76)
    furniture.build_table(desk, room.rng, (width, top, depth))
    add_ornament(room, desk.to_world_xz(sample_uniform(room.rng, -0.35, 0.35) * width, 0.1), top)
    position = wall_space.to_world_xz(
        sample_uniform(room.rng, -0.15, 0.15), sample_uniform(room.rng, -0.05, 0.1) - depth / 2
    )
    chair = room.add_object(
        "chair", position, wall_space.yaw + 3.14 + sample_uniform(room.rng, -0.3, 0.3)
    )
    furniture.build_chair(chair, room.rng, sample_uniform(room.rng, 0.42, 0.47))


def add_ornament(room: Room, position: tuple[float, float], base_height: float) -> None:
    """Add a small lamp or plant on low furniture, with a probability of one half.

    Args:
        room: room to which the objects are added.
        position: world (x, z) in meters.
        base_height: height of the furniture in meters.
    """
    if room.rng.random() < 0.5 or base_height > 1.2:
        return
    if room.rng.random() < 0.5:
        furniture.build_lamp(
            room.add_object("lamp", position, base_height=base_height),
            room.rng,
            sample_uniform(room.rng, 0.4, 0.55),
        )
    else:
        furniture.build_plant(
            room.add_object("plant", position, base_height=base_height),
            room.rng,
            sample_uniform(room.rng, 0.3, 0.5),
        )
