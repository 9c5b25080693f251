"""Binary segmentation tasks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import UnitInterval
from densemtl.losses.base import LabelInfo
from densemtl.losses.options import BinaryLosses
from densemtl.ops.colormaps import apply_probability_colormap
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.loss_task import LossTask
from densemtl.types import IGNORE_INDEX


class Binary(LossTask, CategoricalTask):
    """Binary segmentation with one logit per pixel.

    The prediction is the sigmoid of the logit. The metric is `metrics/binary.py`, unless the
    protocol defines another one.

    Args:
        name: name of the task.
        loss: "balanced_bce" (Xie and Tu, "Holistically-nested edge detection", ICCV 2015, eq. 2) or
            a loss of `Classification`, or a list of losses with weights.
        positive_weight: weight w in [0, 1] of positive pixels in "balanced_bce". The weight of
            negative pixels is 1 - w. None uses the fraction of negative pixels in each batch, so
            that both classes have the same total weight.

    Example:
        >>> import torch
        >>> from densemtl.tasks.binary import Binary
        >>> task = Binary("water")
        >>> logits = torch.tensor([[[[0.0, 3.0]]]])
        >>> task.decode(logits).round(decimals=2)
        tensor([[[0.5000, 0.9500]]])
        >>> task.compute_loss(logits, torch.tensor([[[0, 1]]])).round(decimals=3)
        tensor(0.1850)
    """

    higher_is_better: ClassVar[bool] = True
    error_unit: ClassVar[str] = "probability"

    def __init__(
        self,
        name: str,
        *,
        loss: BinaryLosses = "balanced_bce",
        positive_weight: UnitInterval | None = None,
    ) -> None:
        super().__init__(name)
        self.positive_weight = positive_weight
        defaults = {"balanced_bce": {"positive_weight": positive_weight}}
        self.set_losses(loss, LabelInfo("binary", self.channels, self.num_ids), defaults)

    @property
    def channels(self) -> int:
        """Number of logit channels, 1."""
        return 1

    @property
    def num_ids(self) -> int:
        """Number of ids, 2: negative and positive."""
        return 2

    def decode(self, logits: Tensor) -> Tensor:
        """Convert logits to probabilities.

        Args:
            logits: logits of shape (B, 1, H, W).

        Returns:
            Probabilities of shape (B, H, W), float32.
        """
        return logits.float().squeeze(1).sigmoid()

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Compute the absolute difference between probability and label.

        Args:
            prediction: probabilities, shape (H, W).
            target: 0 or 1, shape (H, W); 255 marks ignored pixels.

        Returns:
            Errors in [0, 1], shape (H, W), float32; NaN at ignored pixels.
        """
        error = np.abs(prediction.astype(np.float32) - target.astype(np.float32))
        return np.where(target == IGNORE_INDEX, np.nan, error).astype(np.float32)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert probabilities or labels to colors, from dark (0) to bright (1).

        Args:
            prediction: probabilities or labels, shape (H, W).

        Returns:
            RGB image of shape (H, W, 3), uint8. Ignored pixels are black, which is not the color
            of 0.
        """
        return apply_probability_colormap(np.where(prediction == IGNORE_INDEX, np.nan, prediction))
