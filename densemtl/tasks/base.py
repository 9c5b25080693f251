"""What every task is: one object that knows its labels, loss, decoding, metric and colours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densemtl.errors import ConfigError
from densemtl.losses.eager_gradient import compute_loss_with_eager_gradient
from densemtl.metrics.base import ImageMetric, TaskMetric
from densemtl.metrics.create import create_metric, find_scoring
from densemtl.metrics.protocols.base import MetricSpec, TaskScoring
from densemtl.types import IGNORE_INDEX, ProtocolName, Size

if TYPE_CHECKING:
    from densemtl.ops.lazy_upsampling import LazyLogits
    from densemtl.transforms.geometry import GeometricTransform


class Task(ABC):
    """One task of one run. Subclasses take `name` and keyword-only options.

    Attributes:
        name: the task's name in the run, and the name of its label in the dataset.
        channels: number of logit channels.
        default_loss_weight: the loss weight of Vandenhende et al. 2021.
        higher_is_better: direction of the primary metric, the same under every protocol.
        error_unit: of what `compute_error_map` gives.
        unit: sign written after a predicted number; most have none.
        added_metrics: what scores the task besides the protocol's metrics.
    """

    default_loss_weight: ClassVar[float] = 1.0
    higher_is_better: ClassVar[bool]
    error_unit: ClassVar[str]
    unit: ClassVar[str] = ""
    added_metrics: tuple[MetricSpec, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of logit channels."""

    @abstractmethod
    def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss over valid pixels; exactly 0, with a graph, when there is none.

        Args:
            logits: BxCxHxW, at the target's size.
            target: as in `Batch.targets`.
        """

    def compute_loss_low_res(self, lazy_logits: LazyLogits, target: Tensor) -> Tensor:
        """As `loss`, of logits on their way to full size, whose maps do not outlive the call.

        Args:
            lazy_logits: float32 BxCxhxw logits, and the way to the target's size.
            target: as in `Batch.targets`.
        """
        whole_batch = (
            ...,
            lambda logits: self.compute_loss(
                replace(lazy_logits, logits=logits).upsample(), target
            ),
        )
        return compute_loss_with_eager_gradient(lazy_logits.logits, [whole_batch])

    @abstractmethod
    def decode(self, logits: Tensor) -> Tensor:
        """BxCxHxW logits -> the prediction people use (ids, probabilities, metres, vectors)."""

    def decode_low_res(self, lazy_logits: LazyLogits) -> Tensor:
        """As `decode`, of logits that are not of the image's size yet, nor have to be made so.

        Args:
            lazy_logits: 1xCxhxw logits of one image, and the way to its size.
        """
        return self.decode(lazy_logits.upsample())

    @abstractmethod
    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """BxHxW bool mask of the pixels that count."""

    def count_labels(self, target: Tensor) -> Tensor:
        """How many labels the loss is a mean over: by that it counts beside other batches' losses.

        A whole number without dimensions; the pixels that count, unless a loss says otherwise.
        """
        return self.compute_valid_mask(target).sum()

    def make_metric(self, protocol: ProtocolName) -> TaskMetric:
        """Return a new metric, updated with (decoded prediction, target)."""
        return self._create(self._require_scoring(protocol).metric, protocol)

    def make_final_metric(self, protocol: ProtocolName) -> ImageMetric | None:
        """Return a new metric too slow for every validation, for the best weights alone, if any."""
        scoring = find_scoring(protocol, type(self))
        if scoring is None or scoring.final_metric is None:
            return None
        return cast(ImageMetric, self._create(scoring.final_metric, protocol))

    def get_primary_metric(self, protocol: ProtocolName) -> str:
        """Return the name of the value that Delta_m reads, of the final metric if there is one."""
        return self._require_scoring(protocol).primary

    def get_selection_metric(self, protocol: ProtocolName) -> str:
        """Return the name of the value of `metric` that selects the best weights."""
        scoring = find_scoring(protocol, type(self))
        return (scoring.selection if scoring else None) or self.get_primary_metric(protocol)

    def metrics(self, protocol: ProtocolName) -> list[TaskMetric]:
        """Return new metrics for every validation: `metric`, and those that the user added."""
        added = (self._create(spec, protocol) for spec in self.added_metrics)
        return [self.make_metric(protocol), *(m for m in added if not isinstance(m, ImageMetric))]

    def final_metrics(self, protocol: ProtocolName) -> list[ImageMetric]:
        """Return new metrics for the best weights alone: `final_metric`, and added slow ones."""
        final = self.make_final_metric(protocol)
        added = (self._create(spec, protocol) for spec in self.added_metrics)
        slow = [metric for metric in added if isinstance(metric, ImageMetric)]
        return slow if final is None else [final, *slow]

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """Return {parameter: value} of what constructors of metrics may take from the task."""
        return {}

    def _require_scoring(self, protocol: ProtocolName) -> TaskScoring:
        scoring = find_scoring(protocol, type(self))
        if scoring is None:
            kind = type(self).__name__
            raise ConfigError(
                f"protocol: {protocol!r} does not score {self.name!r}: add {kind} to its tasks, "
                f"or override {kind}.metric and {kind}.primary"
            )
        return scoring

    def _create(self, spec: MetricSpec, protocol: ProtocolName) -> TaskMetric:
        return create_metric(spec, self.metric_arguments(protocol))

    @abstractmethod
    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """The label of a warped image: resampled without blending, and geometrically true.

        Args:
            target: a label in a `Sample`'s layout.
            geometry: the one applied to the image.
        """

    def inverse_transform_logits(self, logits: Tensor, scale: float, flip: bool) -> Tensor:
        """Logits of a warped image -> those of the plain one: what `warp` does to labels, undone.

        Args:
            logits: BxCxHxW, brought back to the plain image's size already.
            scale: how much nearer things look in the warped image.
            flip: whether it is mirrored left to right.

        Returns:
            Logits that can be averaged with those of other views.
        """
        return logits.flip(-1) if flip else logits

    @abstractmethod
    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """A label map in which no pixel counts, in a `Sample`'s layout."""

    def find_label_error(self, label: NDArray[np.generic]) -> str:
        """Why a label in a `Sample`'s layout cannot be one of this task; empty if it can."""
        empty_label = self.make_empty_label((1, 1))
        same = label.dtype == empty_label.dtype and label.ndim == empty_label.ndim
        if same and label.shape[2:] == empty_label.shape[2:]:
            return ""
        return f"is {_describe_layout(label)}, the task takes {_describe_layout(empty_label)}"

    @abstractmethod
    def compute_error_map(
        self, prediction: NDArray[np.generic], target: NDArray[np.generic]
    ) -> NDArray[np.float32]:
        """How wrong a decoded prediction is at each pixel, HxW from 0 on; NaN where void.

        Args:
            prediction: in a `Sample`'s layout.
            target: a label in a `Sample`'s layout.
        """

    @abstractmethod
    def colorize(self, prediction: NDArray[np.generic]) -> NDArray[np.uint8]:
        """A decoded prediction or label in a `Sample`'s layout -> HxWx3 uint8 RGB; void black."""


def _describe_layout(label: NDArray[np.generic]) -> str:
    return "x".join(["H", "W", *map(str, label.shape[2:])]) + f" {label.dtype}"


class CategoricalTask(Task):
    """A task whose label is one number a pixel that cannot be blended: HxW uint8, void 255."""

    @property
    def num_ids(self) -> int:
        """How many numbers a label may hold, from 0 on, besides void."""
        return self.channels

    def find_label_error(self, label: NDArray[np.generic]) -> str:
        """Nor may it hold other numbers."""
        error = super().find_label_error(label)
        if error:
            return error
        numbers = np.asarray(label, np.uint8)
        beyond = bool(((numbers >= self.num_ids) & (numbers != IGNORE_INDEX)).any())
        return (
            f"holds numbers above {self.num_ids - 1} that are not {IGNORE_INDEX} (void)"
            if beyond
            else ""
        )

    def compute_valid_mask(self, target: Tensor) -> Tensor:
        """Pixels that are not 255."""
        return target != IGNORE_INDEX

    def transform_label(
        self, target: NDArray[np.generic], geometry: GeometricTransform
    ) -> NDArray[np.generic]:
        """Nearest pixel; outside void."""
        return geometry.apply_label(target, IGNORE_INDEX)

    def make_empty_label(self, size: Size) -> NDArray[np.generic]:
        """HxW uint8 of 255."""
        return np.full(size, IGNORE_INDEX, np.uint8)
