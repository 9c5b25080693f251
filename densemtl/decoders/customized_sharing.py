"""Customized sharing (Tang et al., RecSys 2020, "Progressive Layered Extraction", Fig. 1c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.config.constraints import UnitInterval
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.task_networks import PerTaskNetworks, split_alpha
from densemtl.layers.channel_mixing import PyramidMixer
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, SharingWeights


class CustomizedSharing(PerTaskNetworks):
    """One backbone for all tasks and one of its own a task; each head reads both, joined.

    They meet in the pyramid alone, each level by a 1x1, so that any backbone will do.

    Args:
        make_backbone: makes the shared network and one a task.
        make_head: makes one head a task.
        tasks: the run's.
        alpha: share of its own features that a task starts with; the shared ones have the rest.
            At 1 the start is one network a task, at 0 hard sharing.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        alpha: UnitInterval = 0.5,
    ) -> None:
        shares = split_alpha(alpha, 2)
        super().__init__(make_backbone, make_head, tasks)
        self.shared_backbone, self.shared_features = make_backbone(), SharedFeatures()
        widths = self.feature_info.channels
        self.mixers = nn.ModuleDict({task.name: PyramidMixer(widths, shares) for task in tasks})

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        shared = self.shared_features(self.shared_backbone(image))
        final = {}
        for task, head in self.heads.items():
            task_features = self.backbones[task](image)
            final[task] = head(self.mixers[task]([task_features, shared]))
        return Predictions(final)

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Norm of each join's block for own and for shared features, over that of the identity."""
        joins = [join for join in self.mixers.values() if isinstance(join, PyramidMixer)]
        levels = torch.stack([join.compute_block_norms() for join in joins], dim=1)
        return {
            f"level {level}": SharingWeights(self.task_names, ("own", "shared"), weights)
            for level, weights in enumerate(levels, start=1)
        }

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """One backbone is shared besides."""
        return {SHARED: list(self.shared_backbone.parameters()), **super().parameter_groups()}

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Every task's join."""
        return list(self.mixers.parameters())
