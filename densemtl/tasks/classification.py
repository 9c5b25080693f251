"""Tasks that give every pixel one class of several."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.config.constraints import Byte, ClassNames
from densemtl.errors import ConfigError
from densemtl.losses.cross_entropy import banded_cross_entropy, cross_entropy
from densemtl.ops.argmax import argmax_channels, argmax_upsampled
from densemtl.ops.colormaps import VOID_COLOR, make_palette
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.base import CategoricalTask
from densemtl.types import IGNORE_INDEX, ProtocolName


class Classification(CategoricalTask):
    """Pixel classification: cross-entropy, decoded by argmax, scored by mIoU.

    Args:
        name: the task's name.
        class_names: one a class, in the order of the label ids 0, 1, ..; at most 255.
        colors: one RGB colour (0..255) a class; by default a fixed palette.

    Raises:
        ConfigError: a class named twice, or colours that do not match the classes.
    """

    higher_is_better: ClassVar[bool] = True
    error_unit: ClassVar[str] = "wrong"

    def __init__(
        self,
        name: str,
        *,
        class_names: ClassNames,
        colors: list[tuple[Byte, Byte, Byte]] | None = None,
    ) -> None:
        super().__init__(name)
        twice = [class_name for class_name in class_names if class_names.count(class_name) > 1]
        if twice:
            raise ConfigError(f"tasks.{name}.class_names: {twice[0]!r} is named twice.")
        if colors is not None and len(colors) != len(class_names):
            counts = f"{len(colors)} colors for {len(class_names)} classes"
            raise ConfigError(f"tasks.{name}.colors: {counts}; give one a class, or none.")
        self.class_names = tuple(class_names)
        self._color_table = np.tile(VOID_COLOR, (IGNORE_INDEX + 1, 1))
        self._color_table[: self.channels] = (
            make_palette(self.channels) if colors is None else colors
        )

    @property
    def channels(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, sum over valid pixels / their number."""
        return cross_entropy(logits, target, self.compute_valid_mask(target))

    def compute_loss_low_res(self, lazy_logits: LazyLogits, target: Tensor) -> Tensor:
        """In pieces, since classes may be many."""
        return banded_cross_entropy(lazy_logits, target, self.compute_valid_mask(target))

    def decode(self, logits: Tensor) -> Tensor:
        """BxCxHxW logits -> BxHxW int64 class ids."""
        return argmax_channels(logits)

    def decode_low_res(self, lazy_logits: LazyLogits) -> Tensor:
        """The same in bands of rows."""
        return argmax_upsampled(lazy_logits)

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """Names of the classes."""
        return {"class_names": self.class_names}

    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """1 where the class is wrong."""
        return np.where(target == IGNORE_INDEX, np.nan, prediction != target).astype(np.float32)

    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """HxW class ids -> each class's colour."""
        return self._color_table[prediction.astype(np.intp)]
