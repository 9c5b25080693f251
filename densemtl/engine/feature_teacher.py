"""Frozen timm model whose features another backbone learns to predict."""

from __future__ import annotations

from math import lcm

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.backbones.backbone import Backbone
from densemtl.backbones.timm_factory import DEFAULT_OUTPUT_STRIDE, get_model_spec
from densemtl.config.distillation import FeatureTeacherConfig
from densemtl.errors import ModelError
from densemtl.types import FeatureInfo, Size

REFERENCE_PATCH = 16
"""Side in pixels of the patches of common ViTs, whose number other patch sizes are matched to."""


class FeatureTeacher(nn.Module):
    """Frozen timm model, with its own image size and normalization.

    Args:
        config: the entry of the teacher in the configuration.
        input_size: (height, width) of the padded images of the student in pixels.
        rgb: indices of the channels R, G and B of the images.

    Attributes:
        size: (height, width) to which images are resized.
        backbone: the frozen feature network.

    Raises:
        ModelError: if timm has no such model, or it cannot be built for the image size.

    Example:
        >>> config = FeatureTeacherConfig(name="test_vit", pretrained=False)
        >>> teacher = FeatureTeacher(config, (48, 64), (0, 1, 2))
        >>> maps = teacher(torch.zeros(2, 3, 48, 64, dtype=torch.uint8))
        >>> [tuple(each.shape) for each in maps]
        [(2, 64, 3, 4), (2, 64, 3, 4), (2, 64, 3, 4), (2, 64, 3, 4)]
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, config: FeatureTeacherConfig, input_size: Size, rgb: tuple[int, int, int]
    ) -> None:
        super().__init__()
        is_fixed = get_model_spec(config.name, DEFAULT_OUTPUT_STRIDE, None).get_fixed_input_size()
        self.backbone = Backbone(
            config.name,
            pretrained=config.pretrained,
            weights=config.weights,
            img_size=(config.size or input_size) if is_fixed else None,
            freeze="all",
        ).eval()
        self.size = self.backbone.fixed_input_size or choose_size(
            config.size or input_size, self.backbone, resized=config.size is not None
        )
        self.rgb = rgb
        for name, values in (("mean", self.backbone.mean), ("std", self.backbone.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, -1, 1, 1))

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and strides of the maps that `forward` returns."""
        return self.backbone.feature_info

    @torch.no_grad()
    def forward(self, image: Tensor, size_divisor: int = 1) -> list[Tensor]:
        """Compute the feature pyramid of images.

        Args:
            image: images (B, C, H, W) in 0..255, uint8 or float.
            size_divisor: number to whose multiples the student pads height and width, so that maps
                of both networks cover the same area.

        Returns:
            Maps (B, C_l, H_l, W_l) of the levels, finest first, without graph.
        """
        if self.rgb != tuple(range(image.shape[1])):  # indexing makes a GPU wait
            image = image[:, list(self.rgb)]
        normalized = (image.float() - self.mean) / self.std
        height, width = image.shape[-2:]
        padded = F.pad(normalized, (0, -width % size_divisor, 0, -height % size_divisor))
        if padded.shape[-2:] != self.size:
            padded = F.interpolate(padded, self.size, mode="bilinear", antialias=True)
        maps: list[Tensor] = self.backbone(padded)
        return maps


def choose_size(size: Size, backbone: Backbone, resized: bool = False) -> Size:
    """Choose the image size of a teacher that accepts any multiple of its patches or strides.

    Args:
        size: (height, width) of the padded images of the student, or the size in the configuration.
        backbone: the feature network of the teacher.
        resized: whether `size` is that of the configuration, which is only rounded.

    Returns:
        The nearest size of multiples of the divisor of the teacher. For a ViT whose patches neither
        divide 16 pixels nor are multiples, such as 14 pixels, by default the size at which it has
        as many patches as with 16 pixels.

    Raises:
        ModelError: if the images are smaller than a patch.

    Example:
        >>> choose_size((448, 576), Backbone("test_vit", pretrained=False))
        (448, 576)
    """
    divisor = backbone.size_divisor
    is_vit = len(set(backbone.feature_info.strides)) == 1
    is_related = lcm(divisor, REFERENCE_PATCH) == max(divisor, REFERENCE_PATCH)
    unit = REFERENCE_PATCH if is_vit and not is_related and not resized else divisor
    height, width = (round(side / unit) * divisor for side in size)
    if min(height, width) < divisor:
        raise ModelError(
            f"backbone.size: images of {list(size)} are smaller than {divisor} pixels, the largest"
            f" stride of {backbone.name!r}; set a larger size"
        )
    return height, width
