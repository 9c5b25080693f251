"""Tasks that ask yes or no of every pixel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.ops.colormaps import glow
from densemtl.config.constraints import Fraction
from densemtl.losses.balanced_bce import balanced_bce
from densemtl.tasks.base import LabelMap
from densemtl.types import VOID


class Binary(LabelMap):
    """One logit a pixel: balanced cross-entropy, decoded by the sigmoid, scored by pixels.

    Args:
        name: the task's name.
        positive_weight: w in [0, 1] of the positive pixels' loss, 1 - w of the negative ones';
            None takes the share of negatives in each batch, so that both sides count alike.
    """

    higher_is_better: ClassVar[bool] = True
    error_unit: ClassVar[str] = "probability"

    def __init__(self, name: str, *, positive_weight: Fraction | None = None) -> None:
        super().__init__(name)
        self.positive_weight = positive_weight

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def ids(self) -> int:
        """No and yes."""
        return 2

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Balanced binary cross-entropy, mean over valid pixels."""
        return balanced_bce(logits, target, self.valid(target), self.positive_weight)

    def decode(self, logits: Tensor) -> Tensor:
        """Bx1xHxW logits -> BxHxW float32 probabilities."""
        return logits.float().squeeze(1).sigmoid()

    def errors(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """How far the probability is from the label: near 1 at false and at missed pixels."""
        off = np.abs(prediction.astype(np.float32) - target.astype(np.float32))
        return np.where(target == VOID, np.nan, off).astype(np.float32)

    def colour(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """HxW probabilities or labels -> dark to bright; void black, no darker than 0."""
        return glow(np.where(prediction == VOID, np.nan, prediction))
