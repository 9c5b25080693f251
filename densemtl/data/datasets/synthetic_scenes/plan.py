"""Bookkeeping of free space on the floor and the walls of a room."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Rect = tuple[float, float, float, float]
"""(left, low, right, high) in meters."""


def is_overlapping(a: Rect, b: Rect) -> bool:
    """Return whether two rectangles overlap.

    Args:
        a: a rectangle.
        b: another rectangle.

    Returns:
        Whether their intersection has an area.
    """
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass
class FreeArea:
    """Rectangle that is gradually occupied by rectangles that do not overlap.

    Attributes:
        bounds: the rectangle.
        occupied: rectangles inside that are occupied.
    """

    bounds: Rect
    occupied: list[Rect] = field(default_factory=list)

    def is_free(self, rect: Rect) -> bool:
        """Return whether a rectangle is inside the bounds and overlaps no occupied one.

        Args:
            rect: a rectangle.

        Returns:
            Whether it is free.
        """
        left, low, right, high = self.bounds
        inside = rect[0] >= left and rect[1] >= low and rect[2] <= right and rect[3] <= high
        return inside and not any(is_overlapping(rect, other) for other in self.occupied)

    def occupy(self, rect: Rect) -> None:
        """Mark a rectangle as occupied.

        Args:
            rect: a rectangle.
        """
        self.occupied.append(rect)


@dataclass
class WallSegment:
    """Wall; the fronts of objects on it face the room along their -z axes.

    Attributes:
        x: world x of the middle of its lower edge, in meters.
        z: world z of the middle of its lower edge, in meters.
        yaw: orientation of objects with their back to the wall, in radians.
        length: length in meters.
        area: space on and in front of the wall, as (position along the wall, height) rectangles.
    """

    x: float
    z: float
    yaw: float
    length: float
    area: FreeArea

    def to_world_xz(self, along: float, distance: float) -> tuple[float, float]:
        """Convert a position relative to the wall to world coordinates.

        Args:
            along: position along the wall in meters; 0 is its middle.
            distance: distance from the wall in meters.

        Returns:
            World (x, z) in meters.
        """
        cos, sin = round(math.cos(self.yaw)), round(math.sin(self.yaw))
        return (self.x + cos * along - sin * distance, self.z - sin * along - cos * distance)

    def compute_footprint(self, along: float, width: float, depth: float) -> Rect:
        """Return the floor area of an object with its back to the wall.

        Args:
            along: position of its middle along the wall in meters.
            width: width of the object in meters.
            depth: depth of the object in meters.

        Returns:
            World rectangle (left, near, right, far) on the floor.
        """
        (ax, az), (bx, bz) = (
            self.to_world_xz(along - width / 2, 0),
            self.to_world_xz(along + width / 2, depth),
        )
        return (min(ax, bx), min(az, bz), max(ax, bx), max(az, bz))


@dataclass
class FloorPlan:
    """Floor of a room, the rugs on it, and its three visible walls: front, left and right.

    Attributes:
        size: (width, height, depth) of the room in meters.
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
