"""Edge detection."""

from __future__ import annotations

from typing import ClassVar

from densemtl.tasks.binary import Binary


class Edge(Binary):
    """Boundaries between regions: a thin minority of pixels, so their loss weighs 19 times more.

    Args:
        name: the task's name.
        positive_weight: see `Binary`; the survey's .95 (ATRC takes .80 on NYUD).
    """

    weight: ClassVar[float] = 50.0

    def __init__(self, name: str, *, positive_weight: float | None = 0.95) -> None:
        super().__init__(name, positive_weight=positive_weight)
