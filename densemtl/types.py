"""Data types that packages exchange, from files to results.

    Sample -> Batch -> features (FeatureInfo) -> Predictions -> Losses -> metrics -> results

Ignored pixels, which count neither in losses nor in metrics, have the value 255 in integer maps and
NaN in float maps, so that a missing mask is noticed immediately.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORE_INDEX = 255
"""Value of ignored pixels in integer label maps; float label maps use NaN."""

SHARED, FUSION = "shared", "fusion"
"""Names of the parameter groups that belong to no task: parameters that all tasks share, and
parameters that combine features of several tasks."""

Size = tuple[int, int]
"""(height, width) in pixels."""

ProtocolName = str
"""Name of a protocol in `densemtl/metrics/protocols`, or `package.module:Class`."""


RGBImage = NDArray[np.uint8]
"""RGB image, shape (H, W, 3), uint8."""

Image = NDArray[Any]
"""Image of any number of channels, shape (H, W, C), uint8 or float32 in 0..255."""


@dataclass(frozen=True)
class ImageFormat:
    """Channels of the images of a dataset.

    Attributes:
        channels: number of channels C.
        rgb: indices of the channels R, G and B, whose colors may be augmented; None if unknown.
        is_rgb: whether images are read as 8-bit RGB, whatever the type of the file.
    """

    channels: int = 3
    rgb: tuple[int, int, int] | None = (0, 1, 2)
    is_rgb: bool = True


@dataclass(frozen=True)
class Sample:
    """Image with its label maps as read by a dataset, before any augmentation.

    Attributes:
        image: RGB image, shape (H, W, 3), uint8; or, if the dataset says so, an image of other
            channels, shape (H, W, C), uint8 or float32 in 0..255.
        targets: {task: label map} of the image's height and width; a task without labels for this
            image is absent. Class ids and binary maps: (H, W) uint8, ignored pixels 255. Scalar
            maps (depth in meters): (H, W) float32, ignored pixels NaN. Vector maps (normals):
            (H, W, C) float32, ignored pixels NaN.
        id: image id, unique inside the dataset.
    """

    image: Image
    targets: dict[str, NDArray[np.generic]]
    id: str

    @property
    def size(self) -> Size:
        """Size of the image, (height, width)."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class ImagePlacement:
    """Position of the original image inside the model's input.

    Attributes:
        size: (height, width) of the original image in pixels.
        box: (top, left, height, width) in pixels of the input that the original image covers. A
            resized image covers the whole input, a padded image only a part of it.
    """

    size: Size
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class CachedFeatures:
    """Feature pyramid of a batch, computed by a frozen backbone, which replaces the images.

    Attributes:
        maps: maps (B, C_l, H_l, W_l) of the levels, finest first.
        image_size: (height, width) of the images before they were padded for the backbone.
    """

    maps: tuple[Tensor, ...]
    image_size: Size

    def pin_memory(self) -> CachedFeatures:
        """Copy the maps to page-locked memory.

        Returns:
            New features.
        """
        return CachedFeatures(tuple(each.pin_memory() for each in self.maps), self.image_size)

    def to(self, device: torch.device) -> CachedFeatures:
        """Copy the maps to a device, asynchronously if they are in pinned memory.

        Args:
            device: target device.

        Returns:
            New features.
        """
        maps = tuple(each.to(device, non_blocking=True) for each in self.maps)
        return CachedFeatures(maps, self.image_size)

    def contiguous(self, memory_format: torch.memory_format) -> CachedFeatures:
        """Convert the maps to a memory layout, like the method of tensors.

        Args:
            memory_format: memory layout.

        Returns:
            New features.
        """
        maps = tuple(each.contiguous(memory_format=memory_format) for each in self.maps)
        return CachedFeatures(maps, self.image_size)


ModelInput = Tensor | CachedFeatures
"""Images (B, 3, H, W), or the features of the backbone instead."""


@dataclass(frozen=True)
class Batch:
    """Batch of samples for the model.

    Attributes:
        image: RGB images, shape (B, 3, H, W), uint8; or images of other channels (B, C, H, W),
            uint8 or float32 in 0..255.
        targets: {task: targets} for every task of the run, shape (B, H, W) uint8 for class ids and
            binary maps, (B, 1, H, W) or (B, C, H, W) float32 otherwise. Samples without labels have
            ignored pixels only. In training, targets have the size of the input. In evaluation,
            they have the largest original size of the batch, with each label map in the top left
            corner.
        ids: image ids, B strings.
        placements: B positions of the original images, to resize predictions to original size.
        features: features of the backbone if they are cached; `image` is then empty, unless a loss
            needs it.
    """

    image: Tensor
    targets: dict[str, Tensor]
    ids: list[str]
    placements: list[ImagePlacement]
    features: CachedFeatures | None = None

    @property
    def model_input(self) -> ModelInput:
        """Images, or the cached features that replace them."""
        return self.image if self.features is None else self.features

    def __len__(self) -> int:
        return len(self.ids)

    def list_tensors(self) -> list[Tensor]:
        """Return the image, the targets and the features."""
        maps = () if self.features is None else self.features.maps
        return [self.image, *self.targets.values(), *maps]

    def pin_memory(self) -> Batch:
        """Copy the batch to page-locked memory. PyTorch's `DataLoader` calls this method by name.

        Returns:
            A new batch.
        """
        targets = {task: target.pin_memory() for task, target in self.targets.items()}
        features = self.features and self.features.pin_memory()
        return Batch(self.image.pin_memory(), targets, self.ids, self.placements, features)

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device, asynchronously if it is in pinned memory.

        Args:
            device: target device.

        Returns:
            A new batch.
        """
        move = {task: target.to(device, non_blocking=True) for task, target in self.targets.items()}
        image = self.image.to(device, non_blocking=True)
        features = self.features and self.features.to(device)
        return Batch(image, move, self.ids, self.placements, features)


@dataclass(frozen=True)
class FeatureInfo:
    """Shapes of a feature pyramid of NCHW maps, finest level first.

    Attributes:
        channels: number of channels of each level.
        strides: stride of each level with respect to the input, in pixels.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class ValueClassLogits:
    """Logits of classes into which the values of a task are divided.

    The class of a value is that of the nearest center. `densemtl/tasks/value_classes.py` computes
    the loss.

    Attributes:
        logits: logits of K classes at their own resolution, shape (B, K, h, w).
        centers: center of each class in the unit of the task, shape (K, C).
        is_logarithmic: whether distances are differences of logarithms, as for depth.
    """

    logits: Tensor
    centers: Tensor
    is_logarithmic: bool


@dataclass(frozen=True)
class AffinityFeatures:
    """Features of pixels whose scalar products are supervised by pairs of labels.

    `densemtl/tasks/pixel_affinity.py` computes the loss.

    Attributes:
        features: non-negative unit vectors, shape (B, C, h, w).
        pixels: maximum number of pixels per image that are compared with each other.
        weight: weight of the loss.
    """

    features: Tensor
    pixels: int
    weight: float


@dataclass(frozen=True)
class Predictions:
    """Logits of all tasks; the same type in training and evaluation.

    Attributes:
        logits: {task: logits}, shape (B, C, H, W). Decoders return them at feature resolution, the
            model at input size by default.
        aux_logits: additional supervised predictions (deep supervision), each {task: logits} at its
            own resolution, possibly for auxiliary tasks as well.
        aux_losses: {name: scalar}, auxiliary loss terms of the decoder.
        value_class_logits: {task: logits of classes of its values}, which are supervised like
            `aux_logits`.
        affinity_features: {task: features of pixels}, at feature resolution. Predictions at full
            size have none.
        padded_size: (height, width) of the padded image that `logits` covers, if they are at
            feature resolution. Images are padded on the right and at the bottom.
    """

    logits: dict[str, Tensor]
    aux_logits: list[dict[str, Tensor]] = field(default_factory=list)
    aux_losses: dict[str, Tensor] = field(default_factory=dict)
    value_class_logits: dict[str, ValueClassLogits] = field(default_factory=dict)
    affinity_features: dict[str, AffinityFeatures] = field(default_factory=dict)
    padded_size: Size | None = None

    def list_outputs(self) -> list[Tensor]:
        """Return all tensors that a loss is computed from: logits, and losses of the decoder."""
        outputs = [*self.logits.values()]
        for auxiliary in self.aux_logits:
            outputs += auxiliary.values()
        outputs += [each.logits for each in self.value_class_logits.values()]
        outputs += [each.features for each in self.affinity_features.values()]
        return [*outputs, *self.aux_losses.values()]


@dataclass(frozen=True)
class SharingWeights:
    """Learned weights with which tasks combine features of several sources in one module.

    Attributes:
        tasks: names of the rows (tasks).
        sources: names of the columns: tasks, experts or stages, or a quantity such as entropy.
        weights: shape (tasks, sources), detached.
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    weights: Tensor


ColorRange = tuple[float, float]
"""(low, high): numbers that the first and the last color of a colormap show."""


@dataclass(frozen=True)
class Losses:
    """Losses that a training step minimizes.

    Attributes:
        tasks: {task: scalar}, unweighted; the balancing method computes their weights.
        aux_losses: {name: scalar}, loss terms of the decoder, added with weight 1.
    """

    tasks: dict[str, Tensor]
    aux_losses: dict[str, Tensor] = field(default_factory=dict)

    def detach(self) -> Losses:
        """Detach all losses from the autograd graph.

        Returns:
            New losses with the same values.
        """
        parts = (self.tasks, self.aux_losses)
        return Losses(*({name: loss.detach() for name, loss in part.items()} for part in parts))


def join_losses(parts: Iterable[Losses]) -> Losses:
    """Join losses of different tasks.

    Args:
        parts: losses, each of other tasks and terms.

    Returns:
        All losses, in the order of the parts.
    """
    joined = Losses({})
    for part in parts:
        joined.tasks.update(part.tasks)
        joined.aux_losses.update(part.aux_losses)
    return joined


Split = Literal["train", "val"]
"""Training or validation split."""

PredictionMaps = dict[str, NDArray[np.generic]]
"""{task: decoded prediction}, in the layout of `Sample.targets`."""
