"""Pinhole camera intrinsics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intrinsics:
    """Intrinsics of a pinhole camera, with x to the right and y down.

    Attributes:
        fx: horizontal focal length in pixels.
        fy: vertical focal length in pixels.
        cx: column of the principal point, 0-based, in pixels.
        cy: row of the principal point, 0-based, in pixels.

    Example:
        >>> camera = Intrinsics(fx=500, fy=500, cx=320, cy=240)
        >>> camera.shift(-40, -40).scale(0.5)
        Intrinsics(fx=250.0, fy=250.0, cx=140.0, cy=100.0)
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def shift(self, x: float, y: float) -> Intrinsics:
        """Return the camera of an image whose content is shifted, for example by a crop.

        Args:
            x: shift to the right in pixels.
            y: shift down in pixels.

        Returns:
            The intrinsics of the shifted image.
        """
        return Intrinsics(self.fx, self.fy, self.cx + x, self.cy + y)

    def scale(self, factor: float) -> Intrinsics:
        """Return the camera of an image that is resized by a factor.

        Args:
            factor: new size divided by old size.

        Returns:
            The intrinsics of the resized image.
        """
        return Intrinsics(*(factor * value for value in (self.fx, self.fy, self.cx, self.cy)))
