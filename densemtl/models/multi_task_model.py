"""Multi-task model: maps images of any size to logits of that size, with any decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.base import (
    Decoder,
    IndependentHeadsDecoder,
    SharedBackboneDecoder,
    join_outputs,
)
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.class_gates import Gate, apply_gates
from densemtl.types import CachedFeatures, ModelInput, Predictions, SharingWeights, Size


class MultiTaskModel(nn.Module):
    """Multi-task model that normalizes and pads images, and resizes logits to the image size.

    Args:
        decoder: the decoder, which contains at least one backbone. If it contains several
            backbones, all are the same timm model.
        gates: gates of tasks that exist only in a part of the image.

    Attributes:
        size_divisor: number to whose multiples the height and width of images are padded.
        num_channels: number of channels of images.

    Example:
        >>> import densemtl
        >>> model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=["depth"])
        >>> image = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
        >>> model(image).logits["depth"].shape
        torch.Size([2, 1, 50, 70])
        >>> predictions = model(image, full_size=False)
        >>> predictions.logits["depth"].shape, predictions.padded_size
        (torch.Size([2, 1, 16, 24]), (64, 96))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, decoder: Decoder, gates: Sequence[Gate] = ()) -> None:
        super().__init__()
        self.decoder, self.gates = decoder, tuple(gates)
        backbone = next(module for module in decoder.modules() if isinstance(module, Backbone))
        self.size_divisor = backbone.size_divisor
        self.num_channels = backbone.in_chans
        self.register_buffer("mean", _to_channel_tensor(backbone.mean), persistent=False)
        self.register_buffer("std", _to_channel_tensor(backbone.std), persistent=False)

    def forward(self, image: ModelInput, full_size: bool = True) -> Predictions:
        """Predict all tasks.

        Args:
            image: RGB images (B, 3, H, W) in 0..255, uint8 or float, of any size; or images of as
                many channels as the backbone has, or the result of `extract_features`.
            full_size: whether to resize logits to the image size. If False, all logits stay at the
                resolution of the decoder and cover the padded image, whose size is
                `Predictions.padded_size`; `ops.lazy_upsampling` resizes them only where needed.

        Returns:
            Final logits of size (H, W). Auxiliary logits keep their own resolution unless the image
            was padded; then they have size (H, W) as well, because only at full size can the
            padding be cropped exactly.
        """
        if isinstance(image, CachedFeatures):
            size = image.image_size
            return self._finish(
                self.decoder(image), size, self._compute_padded_size(size), full_size
            )
        return self.predict(self.normalize(image), full_size)

    def extract_features(self, image: Tensor) -> CachedFeatures:
        """Run only the backbone of a decoder that reads its feature pyramid.

        Args:
            image: images as for `forward`.

        Returns:
            The features, from which `forward` gives the same predictions as from the images.
        """
        assert isinstance(self.decoder, SharedBackboneDecoder)
        maps: list[Tensor] = self.decoder.backbone(self._pad(self.normalize(image)))
        return CachedFeatures(tuple(maps), get_size(image))

    def compute_shared_features(self, image: ModelInput) -> tuple[list[Tensor], Size]:
        """Run the part of an `IndependentHeadsDecoder` that all tasks share.

        Args:
            image: as for `forward`.

        Returns:
            The maps that all tasks read, and the (height, width) of the padded image.
        """
        assert isinstance(self.decoder, IndependentHeadsDecoder)
        if isinstance(image, CachedFeatures):
            padded_size = self._compute_padded_size(image.image_size)
            return self.decoder.compute_shared_features(image), padded_size
        padded = self._pad(self.normalize(image))
        return self.decoder.compute_shared_features(padded), get_size(padded)

    def decode_task(self, task: str, features: list[Tensor], padded_size: Size) -> Predictions:
        """Predict one task with an `IndependentHeadsDecoder`.

        Args:
            task: name of the task.
            features: the maps that all tasks read.
            padded_size: (height, width) of the padded image that the maps cover.

        Returns:
            Predictions of this task as of `forward` with `full_size=False`.
        """
        assert isinstance(self.decoder, IndependentHeadsDecoder)
        outputs = {task: self.decoder.decode_task(task, features)}
        predictions = apply_gates(self.gates, join_outputs(outputs))
        return replace(predictions, padded_size=padded_size)

    def normalize(self, image: Tensor) -> Tensor:
        """Normalize images by the mean and standard deviation of the backbone's weights.

        Args:
            image: RGB images (B, 3, H, W) in 0..255, uint8 or float.

        Returns:
            Normalized float32 images of the same shape.
        """
        return (image.float() - self.mean) / self.std

    def predict(self, normalized: Tensor, full_size: bool = True) -> Predictions:
        """Predict all tasks from normalized images.

        Args:
            normalized: output of `normalize`.
            full_size: as for `forward`.

        Returns:
            Predictions as of `forward`.
        """
        size = get_size(normalized)
        padded = self._pad(normalized)
        return self._finish(self.decoder(padded), size, get_size(padded), full_size)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group; each parameter is in one group.

        Returns:
            {group: parameters}; see `Decoder.parameter_groups`.
        """
        return self.decoder.parameter_groups()

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the learned weights by which tasks share features.

        Args:
            image: images as for `forward`, on which gates and masks are measured.

        Returns:
            {location in the network: weights}; see `Decoder.sharing_weights`.
        """
        return self.decoder.sharing_weights(self._pad(self.normalize(image)))

    def _finish(
        self, predictions: Predictions, size: Size, padded_size: Size, full_size: bool
    ) -> Predictions:
        """Apply the gates, and resize logits to the image size, unless `full_size` is False."""
        predictions = apply_gates(self.gates, predictions)
        if not full_size:
            return replace(predictions, padded_size=padded_size)
        final = _resize_and_crop(predictions.logits, padded_size, size)
        predictions = replace(predictions, affinity_features={})
        if padded_size == size:
            return replace(predictions, logits=final)
        aux = [_resize_and_crop(logits, padded_size, size) for logits in predictions.aux_logits]
        by_class = {task: each.logits for task, each in predictions.value_class_logits.items()}
        value_classes = {
            task: replace(predictions.value_class_logits[task], logits=logits)
            for task, logits in _resize_and_crop(by_class, padded_size, size).items()
        }
        return replace(predictions, logits=final, aux_logits=aux, value_class_logits=value_classes)

    def _compute_padded_size(self, size: Size) -> Size:
        """Return the next multiples of the size divisor."""
        height, width = size
        return height + -height % self.size_divisor, width + -width % self.size_divisor

    def _pad(self, normalized: Tensor) -> Tensor:
        """Pad images on the right and at the bottom with zeros, which are the mean color."""
        height, width = get_size(normalized)
        if height % self.size_divisor == 0 and width % self.size_divisor == 0:
            return normalized
        return F.pad(normalized, (0, -width % self.size_divisor, 0, -height % self.size_divisor))


def _resize_and_crop(
    logits: Mapping[str, Tensor], padded_size: Size, size: Size
) -> dict[str, Tensor]:
    """Resize logits to the size of the padded image, and crop the padding."""
    height, width = size
    return {task: resize(maps, padded_size)[..., :height, :width] for task, maps in logits.items()}


def _to_channel_tensor(values: tuple[float, ...]) -> Tensor:
    """Return values of C channels in [0, 1] as a tensor (1, C, 1, 1) in 0..255."""
    return 255 * torch.tensor(values).view(1, -1, 1, 1)
