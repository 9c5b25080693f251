"""Tasks that give every pixel one class of several."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.ops.argmax import highest, highest_of
from densemtl.ops.lazy_upsampling import Coarse
from densemtl.ops.colormaps import BLACK, palette
from densemtl.errors import ConfigError
from densemtl.config.constraints import Byte, ClassNames
from densemtl.losses.cross_entropy import coarse_cross_entropy, cross_entropy
from densemtl.tasks.base import LabelMap
from densemtl.types import VOID, ProtocolName


class Classes(LabelMap):
    """Pixel classification: cross-entropy, decoded by argmax, scored by mIoU.

    Args:
        name: the task's name.
        class_names: one a class, in the order of the label ids 0, 1, ..; at most 255.
        colours: one RGB colour (0..255) a class; by default a fixed palette.

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
        colours: list[tuple[Byte, Byte, Byte]] | None = None,
    ) -> None:
        super().__init__(name)
        twice = [each for each in class_names if class_names.count(each) > 1]
        if twice:
            raise ConfigError(f"tasks.{name}.class_names: {twice[0]!r} is named twice.")
        if colours is not None and len(colours) != len(class_names):
            found = f"{len(colours)} colours for {len(class_names)} classes"
            raise ConfigError(f"tasks.{name}.colours: {found}; give one a class, or none.")
        self.class_names = tuple(class_names)
        self._table = np.tile(BLACK, (VOID + 1, 1))
        self._table[: self.channels] = palette(self.channels) if colours is None else colours

    @property
    def channels(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, sum over valid pixels / their number."""
        return cross_entropy(logits, target, self.valid(target))

    def coarse_loss(self, coarse: Coarse, target: Tensor) -> Tensor:
        """In pieces, since classes may be many."""
        return coarse_cross_entropy(coarse, target, self.valid(target))

    def decode(self, logits: Tensor) -> Tensor:
        """BxCxHxW logits -> BxHxW int64 class ids."""
        return highest(logits)

    def decode_coarse(self, coarse: Coarse) -> Tensor:
        """The same in bands of rows."""
        return highest_of(coarse)

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """Names of the classes."""
        return {"class_names": self.class_names}

    def errors(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """1 where the class is wrong."""
        return np.where(target == VOID, np.nan, prediction != target).astype(np.float32)

    def colour(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """HxW class ids -> each class's colour."""
        return self._table[prediction.astype(np.intp)]
