"""UberNet: linear predictions from normalized levels of one pyramid (Kokkinos, CVPR 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, HeadFactory, IndependentHeadsDecoder
from densemtl.errors import ModelError
from densemtl.layers.common import MultiLevelConv1x1, SinglePixelSafeBatchNorm2d
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import SHARED, CachedFeatures, ModelInput

ImageScale = Annotated[float, Field(ge=0.1, le=4)]
"""Factor of the height and width of the image."""

Scales = Annotated[tuple[ImageScale, ...], Field(min_length=1, max_length=8)]
"""One or more scales of the image."""


class UberNet(IndependentHeadsDecoder):
    """UberNet: scores of each task from every level of one backbone, fused over levels and scales.

    Kokkinos, "UberNet: Training a Universal Convolutional Neural Network for Low-, Mid-, and
    High-Level Vision Using Diverse Datasets and Limited Memory", CVPR 2017, section 2. All levels
    are batch-normalized. A 1x1 convolution per task and level computes scores, and another one
    fuses them over the levels. Optionally, the same network reads the image at several scales, and
    a third 1x1 convolution fuses their scores. The tasks have no other layers and no
    nonlinearities, so that a further task costs little.

    The fusions start as the mean of the levels and scales. The paper trains with
    `train.sequential_heads`.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: not used; scores are computed by 1x1 convolutions.
        tasks: tasks to predict.
        scales: scales of the image, whose sides are rounded to multiples of the backbone's
            `size_divisor`. The logits have the resolution of the first one. The paper uses three.
        supervise_levels: whether the scores of each level are supervised as well, in addition to
            those of each scale if there are several.

    Raises:
        ModelError: if there are other scales than 1, and the backbone is built for one image size.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "ubernet", backbone="test_resnet", tasks=["depth", "edge"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
        >>> [tuple(logits["depth"].shape) for logits in predictions.aux_logits]
        [(2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        scales: Scales = (1.0,),
        supervise_levels: bool = True,
    ) -> None:
        super().__init__(make_backbone, tasks)
        self.scales, self.supervise_levels = tuple(scales), supervise_levels
        self.reads_image_once = self.scales == (1.0,)
        if not self.reads_image_once:
            self._check_sizes()
        channels = self.backbone.feature_info.channels
        self.norms = nn.ModuleList(SinglePixelSafeBatchNorm2d(count) for count in channels)
        self.heads = nn.ModuleDict(
            {task.name: UberNetHead(channels, task.channels, len(self.scales)) for task in tasks}
        )

    def _check_sizes(self) -> None:
        """Check that the backbone accepts images of different sizes."""
        with self.backbone.dry_run() as image:
            try:
                self.backbone(self._scale(image, 2.0))
            except ModelError:
                raise ModelError(
                    f"decoder.scales: backbone {self.backbone.name!r} is built for one image size; "
                    "set scales to [1], or choose another backbone"
                ) from None

    def compute_shared_features(self, image: ModelInput) -> list[Tensor]:
        """Run the backbone at each scale and normalize all levels.

        Args:
            image: normalized images (B, C, H, W), padded to the `size_divisor` of the backbone; or
                the features of the backbone for such images.

        Returns:
            Maps (B, C_l, H_l, W_l) of the levels of the first scale, finest first, followed by
            those of the other scales.
        """
        if isinstance(image, CachedFeatures):
            pyramids = [list(image.maps)]
        else:
            pyramids = [self.backbone(self._scale(image, scale)) for scale in self.scales]
        maps: list[Tensor] = self.shared_features(
            [
                norm(level)
                for pyramid in pyramids
                for norm, level in zip(self.norms, pyramid, strict=True)
            ]
        )
        return maps

    def _scale(self, image: Tensor, scale: float) -> Tensor:
        """Resize images; both sides stay multiples of the backbone's `size_divisor`."""
        divisor = self.backbone.size_divisor
        height, width = (
            max(round(side * scale / divisor), 1) * divisor for side in get_size(image)
        )
        return resize(image, (height, width))

    def decode_task(self, task: str, features: list[Tensor]) -> list[Tensor]:
        """Compute the scores of a task.

        Args:
            task: name of the task.
            features: the maps that `compute_shared_features` returns.

        Returns:
            The fused scores, followed by those of each scale if there are several, and by those of
            each level with `supervise_levels`; each at its own resolution.
        """
        final, of_scales, of_levels = self.heads[task](features)
        several = of_scales if len(self.scales) > 1 else []
        return [final, *several, *(of_levels if self.supervise_levels else [])]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the normalizations are shared, and all
            convolutions belong to their task.
        """
        shared = [*self.backbone.parameters(), *self.norms.parameters()]
        return {
            SHARED: shared,
            **{task: list(head.parameters()) for task, head in self.heads.items()},
        }


class UberNetHead(nn.Module):
    """Scores of one task from each level, fused over levels, and over the scales of the image.

    All scales use the same convolutions, except the fusion over scales.

    Args:
        channels: number of channels of each level, finest first.
        out_channels: number of outputs per pixel.
        num_scales: number of scales of the image.

    Example:
        >>> head = UberNetHead((16, 32), out_channels=3, num_scales=1)
        >>> final, of_scales, of_levels = head([torch.randn(2, 16, 8, 8), torch.randn(2, 32, 4, 4)])
        >>> final.shape, len(of_scales), len(of_levels)
        (torch.Size([2, 3, 8, 8]), 1, 2)
    """

    def __init__(self, channels: Sequence[int], out_channels: int, num_scales: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(count, out_channels, 1) for count in channels)
        self.level_fusion = mean_fusion(len(channels), out_channels)
        self.scale_fusion = mean_fusion(num_scales, out_channels) if num_scales > 1 else None

    def forward(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Compute the scores.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels of each scale in turn.

        Returns:
            The final scores at the resolution of the finest level of the first scale, the scores of
            each scale, and those of each level of each scale.
        """
        count = len(self.levels)
        of_levels = [self.levels[i % count](feature) for i, feature in enumerate(features)]
        of_scales = [
            self.level_fusion(of_levels[start : start + count])
            for start in range(0, len(features), count)
        ]
        final = of_scales[0] if self.scale_fusion is None else self.scale_fusion(of_scales)
        return final, of_scales, of_levels


def mean_fusion(count: int, channels: int) -> MultiLevelConv1x1:
    """Build a 1x1 convolution of concatenated score maps, which starts as their mean.

    Args:
        count: number of score maps.
        channels: number of channels of each.

    Returns:
        Layer that resizes the maps to the size of the first one and fuses them.

    Example:
        >>> fusion = mean_fusion(2, channels=1)
        >>> fusion([torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 2, 2)]).unique().tolist()
        [0.5]
    """
    fusion = MultiLevelConv1x1(count * channels, channels, 1)
    with torch.no_grad():
        fusion.weight.copy_(torch.eye(channels).repeat(1, count)[..., None, None] / count)
        assert fusion.bias is not None
        nn.init.zeros_(fusion.bias)
    return fusion
