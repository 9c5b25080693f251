"""The joints: what flows from files to results, one dataclass an arrow.

    Sample -> Batch -> features (FeatureInfo) -> Predictions -> losses -> metrics -> results

Void, the value of a pixel that must never count, is 255 in integer maps and NaN in float maps,
so that a forgotten mask shows at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE_INDEX = 255
"""Void in integer label maps; float label maps use NaN."""

SHARED, FUSION = "shared", "fusion"
"""The parameter groups that are no task's: what all tasks use, and what they meet in."""

Size = tuple[int, int]
"""(height, width) in pixels."""

ProtocolName = str
"""Of a protocol in `densemtl/metrics/protocols`, or `package.module:Class`."""


@dataclass(frozen=True)
class Sample:
    """One image with its labels as a dataset reads it, before any augmentation.

    Attributes:
        image: HxWx3 uint8 RGB.
        targets: one array a task, of the image's height and width; a task without label for this
            image is absent. Classes and binary maps: HxW uint8, void 255. Scalar maps (depth in
            metres): HxW float32, void NaN. Vector maps (normals): HxWxC float32, void NaN.
        id: the name of the image inside its dataset.
    """

    image: NDArray[np.uint8]
    targets: dict[str, NDArray[np.generic]]
    id: str

    @property
    def size(self) -> Size:
        """(height, width) of the image."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class ImagePlacement:
    """Where the original image lies inside the network's input.

    Attributes:
        size: (height, width) of the original image.
        box: (top, left, height, width) in input pixels covered by the original image; a resize
            covers all of the input, a pad only a part.
    """

    size: Size
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Batch:
    """Samples joined for the network.

    Attributes:
        image: Bx3xHxW uint8 RGB.
        targets: for every task of the run, BxHxW uint8 (classes, binary), Bx1xHxW or BxCxHxW
            float32; all void where a sample has no label. In training of the image's size; in
            evaluation of the largest original size, each label in the top left corner.
        ids: B names.
        placements: B frames, to bring predictions back to original size.
    """

    image: Tensor
    targets: dict[str, Tensor]
    ids: list[str]
    placements: list[ImagePlacement]

    def __len__(self) -> int:
        return len(self.ids)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; torch's DataLoader calls this by name."""
        targets = {task: target.pin_memory() for task, target in self.targets.items()}
        return Batch(self.image.pin_memory(), targets, self.ids, self.placements)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device, copied asynchronously from pinned memory."""
        move = {task: target.to(device, non_blocking=True) for task, target in self.targets.items()}
        return Batch(self.image.to(device, non_blocking=True), move, self.ids, self.placements)


@dataclass(frozen=True)
class FeatureInfo:
    """Widths and strides of a pyramid of NCHW feature maps, finest first."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class Predictions:
    """Logits of all tasks; the same type in training and evaluation.

    Attributes:
        logits: {task: BxCxHxW logits}; from a decoder at feature resolution, from the model at
            input size unless asked otherwise.
        aux_logits: further supervised predictions (deep supervision), each {task: logits} at its
            own resolution and possibly for more tasks than the targets.
        aux_losses: {name: scalar} auxiliary loss terms of the architecture itself.
        padded_size: (height, width) of the padded image that `logits` covers, if they are at
            feature resolution. Images are padded on the right and at the bottom.
    """

    logits: dict[str, Tensor]
    aux_logits: list[dict[str, Tensor]] = field(default_factory=list)
    aux_losses: dict[str, Tensor] = field(default_factory=dict)
    padded_size: Size | None = None


@dataclass(frozen=True)
class SharingWeights:
    """How much each task takes from each source, at one place of a network.

    Attributes:
        tasks: names of the rows: tasks.
        sources: names of the columns: tasks, experts, stages ..., or one quantity such as entropy.
        weights: takers x sources, detached.
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    weights: Tensor


RGBImage = NDArray[np.uint8]
"""HxWx3 RGB."""


@dataclass(frozen=True)
class Losses:
    """What a training step minimises.

    Attributes:
        tasks: {task: scalar}, unweighted, to be balanced.
        aux_losses: {name: scalar}, the architecture's own terms, added as they are.
    """

    tasks: dict[str, Tensor]
    aux_losses: dict[str, Tensor] = field(default_factory=dict)

    def detach(self) -> Losses:
        """The numbers without their graph."""
        parts = (self.tasks, self.aux_losses)
        return Losses(*({name: loss.detach() for name, loss in part.items()} for part in parts))


Split = Literal["train", "val"]


PredictionMaps = dict[str, NDArray[np.generic]]
"""{task: decoded prediction in a `Sample`'s layout}."""
