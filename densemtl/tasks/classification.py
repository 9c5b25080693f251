"""Pixel classification tasks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import Byte, ClassNames
from densemtl.config.entire_space import EntireSpaceConfig
from densemtl.errors import ConfigError
from densemtl.losses.base import LabelInfo
from densemtl.losses.options import ClassLosses
from densemtl.losses.partial_labels import PARTIAL_ID, PartialLabelLoss
from densemtl.ops.argmax import argmax_channels, argmax_upsampled
from densemtl.ops.colormaps import VOID_COLOR, make_palette
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.loss_task import LossTask
from densemtl.types import IGNORE_INDEX, ProtocolName


class Classification(LossTask, CategoricalTask):
    """Pixel classification with one logit per class.

    The prediction is the class with the largest logit, and the metric is the mean intersection over
    union.

    Args:
        name: name of the task.
        class_names: one name per class, in the order of the ids 0, 1, ...; at most 255.
        loss: "cross_entropy", "focal", "ohem", "dice" or "lovasz", with options as in
            {"name": "focal", "gamma": 2}, or a list of losses with weights.
        colors: one RGB color in 0..255 per class; by default a fixed palette.
        entire_space: another task and its classes, such as {"of": "semseg", "classes": ["person"]},
            outside which all pixels have the first class of this task; see
            docs/concepts/entire_space.md.

    Raises:
        ConfigError: if a class name occurs twice, the number of colors differs from that of
            classes, or `entire_space` needs more or fewer classes.

    Example:
        >>> import torch
        >>> from densemtl.tasks.classification import Classification
        >>> task = Classification("material", class_names=["wood", "metal"])
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> task.decode(logits)
        tensor([[[1]]])
        >>> task.compute_loss(logits, torch.tensor([[[1]]])).round(decimals=3)
        tensor(0.1270)
    """

    higher_is_better: ClassVar[bool] = True
    error_unit: ClassVar[str] = "wrong"

    def __init__(
        self,
        name: str,
        *,
        class_names: ClassNames,
        loss: ClassLosses = "cross_entropy",
        colors: list[tuple[Byte, Byte, Byte]] | None = None,
        entire_space: EntireSpaceConfig | None = None,
    ) -> None:
        super().__init__(name)
        duplicates = [class_name for class_name in class_names if class_names.count(class_name) > 1]
        if duplicates:
            raise ConfigError(
                f"tasks.{name}.class_names: {duplicates[0]!r} occurs twice; rename one of the two"
            )
        if colors is not None and len(colors) != len(class_names):
            counts = f"{len(colors)} colors for {len(class_names)} classes"
            raise ConfigError(f"tasks.{name}.colors: {counts}; give one color per class, or none")
        self.class_names = tuple(class_names)
        self.set_losses(loss, LabelInfo("classes", self.channels, self.channels))
        self.entire_space = entire_space
        if entire_space is not None:
            if not 2 <= self.channels <= PARTIAL_ID:
                raise ConfigError(
                    f"tasks.{name}.entire_space: needs 2 to {PARTIAL_ID} classes, not "
                    f"{self.channels}; remove it"
                )
            self.losses = PartialLabelLoss(self.losses)
        self._color_table = np.tile(VOID_COLOR, (IGNORE_INDEX + 1, 1))
        self._color_table[: self.channels] = (
            make_palette(self.channels) if colors is None else colors
        )

    @property
    def channels(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def decode(self, logits: Tensor) -> Tensor:
        """Convert logits to class ids.

        Args:
            logits: logits of shape (B, C, H, W).

        Returns:
            Class ids of shape (B, H, W), int64.
        """
        return argmax_channels(logits)

    def decode_low_res(self, lazy_logits: LazyLogits) -> Tensor:
        """Convert low-resolution logits to class ids in bands of rows.

        Args:
            lazy_logits: logits of one image, shape (1, C, h, w), with the steps of their
                upsampling.

        Returns:
            Class ids of shape (1, H, W), int64.
        """
        return argmax_upsampled(lazy_logits)

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """Return the class names for constructors of metrics.

        Args:
            protocol: name of the protocol.

        Returns:
            {"class_names": class names}.
        """
        return {"class_names": self.class_names}

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """Mark the pixels with a wrong class.

        Args:
            prediction: class ids, shape (H, W).
            target: class ids, shape (H, W); 255 marks ignored pixels.

        Returns:
            1 for wrong and 0 for correct pixels, shape (H, W), float32; NaN at ignored pixels.
        """
        return np.where(target == IGNORE_INDEX, np.nan, prediction != target).astype(np.float32)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Convert class ids to colors.

        Args:
            prediction: class ids, shape (H, W).

        Returns:
            RGB image of shape (H, W, 3), uint8; ignored pixels are black.
        """
        return self._color_table[prediction.astype(np.intp)]
