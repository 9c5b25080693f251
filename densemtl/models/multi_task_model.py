"""From an image of any size to logits of that size, around any architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.base import Decoder
from densemtl.ops.resize import get_size, resize
from densemtl.types import Predictions, SharingWeights, Size


class MultiTaskModel(nn.Module):
    """Normalises, pads, predicts, and brings logits back to the image.

    Args:
        decoder: the architecture, with at least one backbone inside; if several, all of one kind.

    Attributes:
        size_divisor: images are padded to heights and widths divisible by it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        backbone = next(module for module in decoder.modules() if isinstance(module, Backbone))
        self.size_divisor = backbone.size_divisor
        self.register_buffer("mean", _to_channel_tensor(backbone.mean), persistent=False)
        self.register_buffer("std", _to_channel_tensor(backbone.std), persistent=False)

    def forward(self, image: Tensor, full_size: bool = True) -> Predictions:
        """Predict all tasks.

        Args:
            image: Bx3xHxW RGB in 0..255, uint8 or float, of any size.
            full_size: False leaves all logits as the decoder made them, of the padded image
                (`Predictions.canvas`), to whoever needs no map of full size (see `coarse.py`).

        Returns:
            Final logits at HxW. Auxiliary logits at their own resolution, unless the image had to
            be padded: then at HxW as well, because only there can the padding be cut off exactly.
        """
        return self.predict(self.normalize(image), full_size)

    def normalize(self, image: Tensor) -> Tensor:
        """RGB in 0..255 -> as the backbone's weights want it."""
        return (image.float() - self.mean) / self.std

    def predict(self, normalized: Tensor, full_size: bool = True) -> Predictions:
        """As `forward`, from what `normalise` gives."""
        size = get_size(normalized)
        padded = self._pad(normalized)
        predictions = self.decoder(padded)
        whole = get_size(padded)
        if not full_size:
            return replace(predictions, padded_size=whole)
        final = _resize_and_crop(predictions.logits, whole, size)
        if whole == size:
            return Predictions(final, predictions.aux_logits, predictions.aux_losses)
        aux = [_resize_and_crop(logits, whole, size) for logits in predictions.aux_logits]
        return Predictions(final, aux, predictions.aux_losses)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Every parameter once, by what it serves: see `Decoder.parameter_groups`."""
        return self.decoder.parameter_groups()

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """What the architecture learnt about sharing: see `Decoder.sharing`.

        Args:
            image: as for `forward`.
        """
        return self.decoder.sharing_weights(self._pad(self.normalize(image)))

    def _pad(self, normalized: Tensor) -> Tensor:
        """With zeros, the mean colour, at the right and the bottom; as it is where it fits."""
        height, width = get_size(normalized)
        if height % self.size_divisor == 0 and width % self.size_divisor == 0:
            return normalized
        return F.pad(normalized, (0, -width % self.size_divisor, 0, -height % self.size_divisor))


def _resize_and_crop(
    logits: Mapping[str, Tensor], padded_size: Size, size: Size
) -> dict[str, Tensor]:
    """Logits of a padded image -> at the image's size, without the padding."""
    height, width = size
    return {task: resize(maps, padded_size)[..., :height, :width] for task, maps in logits.items()}


def _to_channel_tensor(rgb: tuple[float, ...]) -> Tensor:
    """0..1 a channel -> 1x3x1x1 in 0..255."""
    return 255 * torch.tensor(rgb).view(1, -1, 1, 1)
