"""What every task is: one object that knows its labels, loss, decoding, metric and colours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.losses.at_once import at_once
from densemtl.types import VOID, ProtocolName, Size

if TYPE_CHECKING:
    from densemtl.coarse import Coarse
    from densemtl.data.geometry import Geometry
    from densemtl.metrics.base import ImageMetric, TaskMetric


class Task(ABC):
    """One task of one run. Subclasses take `name` and keyword-only options.

    Attributes:
        name: the task's name in the run, and the name of its label in the dataset.
        channels: number of logit channels.
        weight: the usual loss weight (Vandenhende et al. 2021, "MTL for dense prediction").
        higher_is_better: direction of the primary metric, the same under every protocol.
        error_unit: of what `errors` gives.
        unit: sign written after a predicted number; most have none.
    """

    weight: ClassVar[float] = 1.0
    higher_is_better: ClassVar[bool]
    error_unit: ClassVar[str]
    unit: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of logit channels."""

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss over valid pixels; exactly 0, with a graph, when there is none.

        Args:
            logits: BxCxHxW, at the target's size.
            target: as in `Batch.targets`.
        """

    def coarse_loss(self, coarse: Coarse, target: Tensor) -> Tensor:
        """As `loss`, of logits on their way to full size, whose maps do not outlive the call.

        Args:
            coarse: float32 BxCxhxw logits, and the way to the target's size.
            target: as in `Batch.targets`.
        """
        whole_batch = (..., lambda each: self.loss(replace(coarse, logits=each).whole(), target))
        return at_once(coarse.logits, [whole_batch])

    @abstractmethod
    def decode(self, logits: Tensor) -> Tensor:
        """BxCxHxW logits -> the prediction people use (ids, probabilities, metres, vectors)."""

    def decode_coarse(self, coarse: Coarse) -> Tensor:
        """As `decode`, of logits that are not of the image's size yet, nor have to be made so.

        Args:
            coarse: 1xCxhxw logits of one image, and the way to its size.
        """
        return self.decode(coarse.whole())

    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """BxHxW bool mask of the pixels that count."""

    def labels(self, target: Tensor) -> Tensor:
        """How many labels the loss is a mean over: by that it counts beside other batches' losses.

        A whole number without dimensions; the pixels that count, unless a loss says otherwise.
        """
        return self.valid(target).sum()

    @abstractmethod
    def metric(self, protocol: ProtocolName) -> TaskMetric:
        """A fresh metric, updated with (decoded prediction, target)."""

    def final_metric(self, protocol: ProtocolName) -> ImageMetric | None:
        """A fresh metric too slow for every validation, for the best weights alone; mostly none."""
        return None

    @abstractmethod
    def primary(self, protocol: ProtocolName) -> str:
        """Name of the value that Delta_m reads, of the final metric where there is one."""

    def selection(self, protocol: ProtocolName) -> str:
        """Name of the value of `metric` that tells which weights are best: mostly the primary."""
        return self.primary(protocol)

    @abstractmethod
    def warp(self, target: NDArray[np.generic], geometry: Geometry) -> NDArray[np.generic]:
        """The label of a warped image: resampled without blending, and geometrically true.

        Args:
            target: a label in a `Sample`'s layout.
            geometry: the one applied to the image.
        """

    def unwarp(self, logits: Tensor, zoom: float, flip: bool) -> Tensor:
        """Logits of a warped image -> those of the plain one: what `warp` does to labels, undone.

        Args:
            logits: BxCxHxW, brought back to the plain image's size already.
            zoom: how much nearer things look in the warped image.
            flip: whether it is mirrored left to right.

        Returns:
            Logits that can be averaged with those of other views.
        """
        return logits.flip(-1) if flip else logits

    @abstractmethod
    def void(self, size: Size) -> NDArray[np.generic]:
        """A label map in which no pixel counts, in a `Sample`'s layout."""

    def misfit(self, label: NDArray[np.generic]) -> str:
        """Why a label in a `Sample`'s layout cannot be one of this task; empty if it can."""
        own = self.void((1, 1))
        same = label.dtype == own.dtype and label.ndim == own.ndim
        if same and label.shape[2:] == own.shape[2:]:
            return ""
        return f"is {_layout(label)}, the task takes {_layout(own)}"

    @abstractmethod
    def errors(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """How wrong a decoded prediction is at each pixel, HxW from 0 on; NaN where void.

        Args:
            prediction: in a `Sample`'s layout.
            target: a label in a `Sample`'s layout.
        """

    @abstractmethod
    def colour(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """A decoded prediction or label in a `Sample`'s layout -> HxWx3 uint8 RGB; void black."""


def _layout(label: NDArray[np.generic]) -> str:
    return "x".join(["H", "W", *map(str, label.shape[2:])]) + f" {label.dtype}"


class LabelMap(Task):
    """A task whose label is one number a pixel that cannot be blended: HxW uint8, void 255."""

    @property
    def ids(self) -> int:
        """How many numbers a label may hold, from 0 on, besides void."""
        return self.channels

    def misfit(self, label: NDArray[np.generic]) -> str:
        """Nor may it hold other numbers."""
        found = super().misfit(label)
        if found:
            return found
        numbers = np.asarray(label, np.uint8)
        beyond = bool(((numbers >= self.ids) & (numbers != VOID)).any())
        return f"holds numbers above {self.ids - 1} that are not {VOID} (void)" if beyond else ""

    def valid(self, target: Tensor) -> Tensor:
        """Pixels that are not 255."""
        return target != VOID

    def warp(self, target: NDArray[np.generic], geometry: Geometry) -> NDArray[np.generic]:
        """Nearest pixel; outside void."""
        return geometry.labels(target, VOID)

    def void(self, size: Size) -> NDArray[np.generic]:
        """HxW uint8 of 255."""
        return np.full(size, VOID, np.uint8)
