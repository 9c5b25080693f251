"""From an image of any size to logits of that size, around any architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.decoders.base import Decoder
from densemtl.backbones.backbone import Backbone
from densemtl.layers.common import resize, size_of
from densemtl.types import Predictions, Sharing, Size


class DenseModel(nn.Module):
    """Normalises, pads, predicts, and brings logits back to the image.

    Args:
        decoder: the architecture, with at least one backbone inside; if several, all of one kind.

    Attributes:
        multiple: images are padded to heights and widths divisible by it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        backbone = next(module for module in decoder.modules() if isinstance(module, Backbone))
        self.multiple = backbone.multiple
        self.register_buffer("mean", _levels(backbone.mean), persistent=False)
        self.register_buffer("std", _levels(backbone.std), persistent=False)

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
        return self.predict(self.normalise(image), full_size)

    def normalise(self, image: Tensor) -> Tensor:
        """RGB in 0..255 -> as the backbone's weights want it."""
        return (image.float() - self.mean) / self.std

    def predict(self, normalised: Tensor, full_size: bool = True) -> Predictions:
        """As `forward`, from what `normalise` gives."""
        size = size_of(normalised)
        padded = self._padded(normalised)
        predictions = self.decoder(padded)
        whole = size_of(padded)
        if not full_size:
            return replace(predictions, canvas=whole)
        final = _crop(predictions.final, whole, size)
        if whole == size:
            return Predictions(final, predictions.aux, predictions.terms)
        aux = [_crop(each, whole, size) for each in predictions.aux]
        return Predictions(final, aux, predictions.terms)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Every parameter once, by what it serves: see `Decoder.parameter_groups`."""
        return self.decoder.parameter_groups()

    def sharing(self, image: Tensor) -> Mapping[str, Sharing]:
        """What the architecture learnt about sharing: see `Decoder.sharing`.

        Args:
            image: as for `forward`.
        """
        return self.decoder.sharing(self._padded(self.normalise(image)))

    def _padded(self, normalised: Tensor) -> Tensor:
        """With zeros, the mean colour, at the right and the bottom; as it is where it fits."""
        height, width = size_of(normalised)
        if height % self.multiple == 0 and width % self.multiple == 0:
            return normalised
        return F.pad(normalised, (0, -width % self.multiple, 0, -height % self.multiple))


def _crop(logits: Mapping[str, Tensor], whole: Size, size: Size) -> dict[str, Tensor]:
    """Logits of a padded image -> at the image's size, without the padding."""
    height, width = size
    return {task: resize(each, whole)[..., :height, :width] for task, each in logits.items()}


def _levels(colour: tuple[float, ...]) -> Tensor:
    """0..1 a channel -> 1x3x1x1 in 0..255."""
    return 255 * torch.tensor(colour).view(1, -1, 1, 1)
