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
"""Of the layers' batch normalisation, as published."""


class NDDRCNN(StageExchangeNetworks):
    """After the stem and every stage all tasks' channels are joined and, per task, reduced again.

    Args:
        make_backbone: makes one network a task.
        make_head: makes one head a task.
        tasks: the run's.
        shortcut: the paper's: the head's last feature is reduced from all stages', resized to it.
        options: see `StageExchangeNetworks`; `alpha` is that of section 3.3.

    Raises:
        ModelError: a backbone that cannot be run stage by stage.
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
        """Join, then reduce for each task."""
        joined = torch.cat(features, dim=1)
        reductions = self.layers[level]
        assert isinstance(reductions, nn.ModuleList)
        return [reduce(joined) for reduce in reductions]

    def decode_pyramids(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Each task's pyramid, its last level through the shortcut if there is one -> logits."""
        for pyramid, reduce in zip(pyramids, self.shortcuts, strict=False):
            size = get_size(pyramid[-1])
            pyramid[-1] = reduce(torch.cat([resize(level, size) for level in pyramid], dim=1))
        return super().decode_pyramids(pyramids)

    def fusion_parameters(self) -> list[nn.Parameter]:
        """The reductions, of stages and of shortcuts."""
        return [*self.layers.parameters(), *self.shortcuts.parameters()]

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Norm of every task's block in each reduction, over that of the identity."""
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
    """1x1 without bias, BN, ReLU; starts as a mixture of all tasks' equal channels."""
    return nn.Sequential(
        identity_mixed_conv(width, shares),
        nn.BatchNorm2d(width, momentum=BN_MOMENTUM),
        nn.ReLU(inplace=True),
    )


def _measure_stem_channels(backbone: Backbone) -> int:
    """Channels of the stem's output, which no specification tells: tried out."""
    with backbone.dry_run() as noise:
        return backbone.run_stem(noise).feature.shape[1]
