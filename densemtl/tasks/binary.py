"""Tasks that ask yes or no of every pixel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import UnitInterval
from densemtl.losses.balanced_bce import balanced_bce
from densemtl.ops.colormaps import apply_probability_colormap
from densemtl.tasks.base import CategoricalTask
from densemtl.types import IGNORE_INDEX


class Binary(CategoricalTask):
    """One logit a pixel: balanced cross-entropy, decoded by the sigmoid, scored by pixels.

    Args:
        name: the task's name.
        positive_weight: w in [0, 1] of the positive pixels' loss, 1 - w of the negative ones';
            None takes the share of negatives in each batch, so that both sides count alike.
    """

    higher_is_better: ClassVar[bool] = True
    error_unit: ClassVar[str] = "probability"

    def __init__(self, name: str, *, positive_weight: UnitInterval | None = None) -> None:
        super().__init__(name)
        self.positive_weight = positive_weight

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def num_ids(self) -> int:
        """No and yes."""
        return 2

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Balanced binary cross-entropy, mean over valid pixels."""
        return balanced_bce(logits, target, self.compute_valid_mask(target), self.positive_weight)

    def decode(self, logits: Tensor) -> Tensor:
        """Bx1xHxW logits -> BxHxW float32 probabilities."""
        return logits.float().squeeze(1).sigmoid()

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """How far the probability is from the label: near 1 at false and at missed pixels."""
        off = np.abs(prediction.astype(np.float32) - target.astype(np.float32))
        return np.where(target == IGNORE_INDEX, np.nan, off).astype(np.float32)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """HxW probabilities or labels -> dark to bright; void black, no darker than 0."""
        return apply_probability_colormap(np.where(prediction == IGNORE_INDEX, np.nan, prediction))
