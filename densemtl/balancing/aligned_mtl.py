"""Aligned-MTL: independent component alignment (Senushkin et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from densemtl.balancing._torchjd import TorchJDBalancer
from densemtl.tasks.base import Task


class AlignedMTL(TorchJDBalancer):
    """Mean of the gradients after their principal components were scaled to equal length.

    Senushkin et al., "Independent component alignment for multi-task learning", CVPR 2023,
    algorithm 1.

    Args:
        tasks: the tasks of the run.
        scale: the common length of the components: that of the shortest ("min"), that of the median
            one, or the root of the mean square ("rmse").
        options: options of `GradientBalancer`.
    """

    weighting_name = "AlignedMTLWeighting"

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        scale: Literal["min", "median", "rmse"] = "min",
        **options: Any,
    ) -> None:
        super().__init__(tasks, {"scale_mode": scale}, **options)
