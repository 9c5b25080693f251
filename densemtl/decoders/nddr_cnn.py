"""NDDR-CNN: neural discriminative dimensionality reduction (Gao et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.stage_exchange import StageExchangeNetworks
from densemtl.layers.channel_mixing import compute_block_norms, identity_mixed_conv
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import SharingWeights

BN_MOMENTUM = 0.05
"""Momentum of the batch normalization of NDDR layers, as in the paper."""


class NDDRCNN(StageExchangeNetworks):
    """NDDR-CNN: one network per task, fused by NDDR layers after the stem and every stage.

    Gao et al., "NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural Discriminative
    Dimensionality Reduction", CVPR 2019. An NDDR layer concatenates the features of all tasks and
    reduces them to the original number of channels by one 1x1 convolution per task, followed by
    batch normalization and ReLU.

    Args:
        make_backbone: factory of backbones; called once per task.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        shortcut: whether to use the shortcut of the paper: the last level that a head reads is
            computed from all levels, resized to it, by a 1x1 convolution.
        options: options of `StageExchangeNetworks`; `alpha` is that of section 3.3 of the paper.

    Raises:
        ModelError: if the backbone cannot be run stage by stage.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "nddr_cnn", backbone="test_resnet", tasks=["depth", "edge"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        shortcut: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(make_backbone, make_head, tasks, **options)
        count, spec = len(tasks), self.feature_info
        widths = (_measure_stem_channels(self._get_first_backbone()), *spec.channels)
        self.layers = nn.ModuleList(
            nn.ModuleList(_make_nddr_layer(width, row) for row in self.shares) for width in widths
        )
        joined, last = sum(spec.channels), spec.channels[-1]
        self.shortcuts = nn.ModuleList(
            nn.Conv2d(joined, last, 1) for _ in range(count * int(shortcut))
        )

    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """Fuse the features of all tasks by the NDDR layers of a level.

        Args:
            level: `STEM_LEVEL` for the output of the stem, i + 1 for the output of stage i.
            features: one map (B, C, H, W) per task, in the order of tasks.

        Returns:
            One map of the same shape per task.
        """
        joined = torch.cat(features, dim=1)
        reductions = self.layers[level]
        assert isinstance(reductions, nn.ModuleList)
        return [reduce(joined) for reduce in reductions]

    def decode_pyramids(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Apply the shortcuts, if enabled, and predict each task from its feature pyramid.

        Args:
            pyramids: one list of maps (B, C_l, H_l, W_l), finest first, per task; with shortcuts,
                the last map of each list is replaced.

        Returns:
            {task: logits}.
        """
        for pyramid, reduce in zip(pyramids, self.shortcuts, strict=False):
            size = get_size(pyramid[-1])
            pyramid[-1] = reduce(torch.cat([resize(level, size) for level in pyramid], dim=1))
        return super().decode_pyramids(pyramids)

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the NDDR layers and of the shortcuts."""
        return [*self.layers.parameters(), *self.shortcuts.parameters()]

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the weights of all tasks in each NDDR layer.

        Args:
            image: not used.

        Returns:
            {"stem" or "stage N": Frobenius norm of the convolution weights of each task's features
            (columns) for each task (rows), relative to the norm of the identity}.
        """
        names = self.task_names
        layer_names = ("stem", *(f"stage {stage + 1}" for stage in range(len(self.feature_info))))
        return {
            layer_name: SharingWeights(
                names, names, torch.stack([compute_block_norms(reduction) for reduction in layer])
            )
            for layer_name, layer in zip(layer_names, self.layers, strict=True)
            if isinstance(layer, nn.ModuleList)
        }


def _make_nddr_layer(width: int, shares: Sequence[float]) -> nn.Sequential:
    """Create a 1x1 convolution without bias, batch normalization and ReLU.

    The convolution is initialized as the weighted sum, by `shares`, of the corresponding channels
    of all tasks.
    """
    return nn.Sequential(
        identity_mixed_conv(width, shares),
        nn.BatchNorm2d(width, momentum=BN_MOMENTUM),
        nn.ReLU(inplace=True),
    )


def _measure_stem_channels(backbone: Backbone) -> int:
    """Return the number of channels of the stem output, measured by a dry run.

    `feature_info` does not contain it.
    """
    with backbone.dry_run() as noise:
        return backbone.run_stem(noise).feature.shape[1]
