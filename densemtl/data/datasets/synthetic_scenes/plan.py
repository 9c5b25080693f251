"""Which part of the floor and of the walls is still free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Rect = tuple[float, float, float, float]
"""(left, low, right, high) in metres."""


def overlap(a: Rect, b: Rect) -> bool:
    """Whether two rectangles share area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass
class Area:
    """A rectangle on which others are put down side by side."""

    bounds: Rect
    taken: list[Rect] = field(default_factory=list)

    def free(self, rect: Rect) -> bool:
        """Whether a rectangle lies inside and on nothing else."""
        left, low, right, high = self.bounds
        inside = rect[0] >= left and rect[1] >= low and rect[2] <= right and rect[3] <= high
        return inside and not any(overlap(rect, other) for other in self.taken)

    def take(self, rect: Rect) -> None:
        """Occupy a rectangle."""
        self.taken.append(rect)


@dataclass
class Wall:
    """One wall: objects on it look into the room along their own -z.

    Attributes:
        x: world x of the middle of its foot.
        z: world z of the middle of its foot.
        yaw: turn of objects that stand with their back to it.
        length: metres.
        area: what hangs or stands in front of it, as (along, height) rectangles.
    """

    x: float
    z: float
    yaw: float
    length: float
    area: Area

    def at(self, along: float, away: float) -> tuple[float, float]:
        """World (x, z) at a place along the wall (0 is its middle), away from it."""
        cos, sin = round(math.cos(self.yaw)), round(math.sin(self.yaw))
        return (self.x + cos * along - sin * away, self.z - sin * along - cos * away)

    def footprint(self, along: float, width: float, depth: float) -> Rect:
        """Floor that a piece of a width and depth covers with its back to the wall."""
        (ax, az), (bx, bz) = self.at(along - width / 2, 0), self.at(along + width / 2, depth)
        return (min(ax, bx), min(az, bz), max(ax, bx), max(az, bz))


@dataclass
class Plan:
    """The room's floor, the rugs on it, and its three walls in view: ahead, left and right.

    Attributes:
        size: (width, height, depth) of the room.
    """

    size: tuple[float, float, float]

    def __post_init__(self) -> None:
        width, height, depth = self.size
        self.floor = Area((-width / 2, 0, width / 2, depth))
        self.rugs = Area(self.floor.bounds)
        self.walls = [
            Wall(x, z, yaw, long, Area((-long / 2, 0, long / 2, height)))
            for x, z, yaw, long in (
                (0.0, depth, 0.0, width),
                (-width / 2, depth / 2, -math.pi / 2, depth),
                (width / 2, depth / 2, math.pi / 2, depth),
            )
        ]
