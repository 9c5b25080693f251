"""Pinhole camera intrinsics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and 0-based centre in pixels; x right, y down."""

    fx: float
    fy: float
    cx: float
    cy: float

    def shift(self, x: float, y: float) -> Intrinsics:
        """The camera of a picture whose content moved by x to the right and y down."""
        return Intrinsics(self.fx, self.fy, self.cx + x, self.cy + y)

    def scale(self, factor: float) -> Intrinsics:
        """The camera of a picture resized by a factor."""
        return Intrinsics(*(factor * value for value in (self.fx, self.fy, self.cx, self.cy)))
