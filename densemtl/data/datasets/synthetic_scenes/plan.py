"""Which part of the floor and of the walls is still free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Rect = tuple[float, float, float, float]
"""(left, low, right, high) in metres."""


def is_overlapping(a: Rect, b: Rect) -> bool:
    """Whether two rectangles share area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass
class FreeArea:
    """A rectangle on which others are put down side by side."""

    bounds: Rect
    occupied: list[Rect] = field(default_factory=list)

    def is_free(self, rect: Rect) -> bool:
        """Whether a rectangle lies inside and on nothing else."""
        left, low, right, high = self.bounds
        inside = rect[0] >= left and rect[1] >= low and rect[2] <= right and rect[3] <= high
        return inside and not any(is_overlapping(rect, other) for other in self.occupied)

    def occupy(self, rect: Rect) -> None:
        """Occupy a rectangle."""
        self.occupied.append(rect)


@dataclass
class WallSegment:
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
    area: FreeArea

    def to_world_xz(self, along: float, distance: float) -> tuple[float, float]:
        """World (x, z) at a place along the wall (0 is its middle), away from it."""
        cos, sin = round(math.cos(self.yaw)), round(math.sin(self.yaw))
        return (self.x + cos * along - sin * distance, self.z - sin * along - cos * distance)

    def compute_footprint(self, along: float, width: float, depth: float) -> Rect:
        """Floor that a piece of a width and depth covers with its back to the wall."""
        (ax, az), (bx, bz) = (
            self.to_world_xz(along - width / 2, 0),
            self.to_world_xz(along + width / 2, depth),
        )
        return (min(ax, bx), min(az, bz), max(ax, bx), max(az, bz))


@dataclass
class FloorPlan:
    """The room's floor, the rugs on it, and its three walls in view: ahead, left and right.

    Attributes:
        size: (width, height, depth) of the room.
    """

    size: tuple[float, float, float]

    def __post_init__(self) -> None:
        width, height, depth = self.size
        self.floor = FreeArea((-width / 2, 0, width / 2, depth))
        self.rugs = FreeArea(self.floor.bounds)
        self.walls = [
            WallSegment(x, z, yaw, long, FreeArea((-long / 2, 0, long / 2, height)))
            for x, z, yaw, long in (
                (0.0, depth, 0.0, width),
                (-width / 2, depth / 2, -math.pi / 2, depth),
                (width / 2, depth / 2, math.pi / 2, depth),
            )
        ]
