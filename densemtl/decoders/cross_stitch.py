"""Cross-stitch networks (Misra et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.stage_exchange import STEM_LEVEL, StageExchangeNetworks
from densemtl.layers.common import weighted_sum
from densemtl.tasks.base import Task
from densemtl.types import SharingWeights


class CrossStitch(StageExchangeNetworks):
    """After every stage each task's channel becomes a learned mixture of all tasks' (eq. 1).

    Args:
        make_backbone: makes one network a task.
        make_head: makes one head a task.
        tasks: the run's.
        options: see `StageExchangeNetworks`; `alpha` is that of section 3.2.

    Raises:
        ModelError: a backbone that cannot be run stage by stage.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        **options: Any,
    ) -> None:
        super().__init__(make_backbone, make_head, tasks, **options)
        start = torch.tensor(self.shares)
        self.units = nn.ParameterList(
            start[:, :, None].repeat(1, 1, channels) for channels in self.feature_info.channels
        )

    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """A weighted sum over tasks, with a weight a channel."""
        if level == STEM_LEVEL:
            return features
        unit = self.units[level - 1][..., None, None]
        return [weighted_sum(weights.unbind(), features) for weights in unit]

    def fusion_parameters(self) -> list[nn.Parameter]:
        """One TxTxC unit a stage."""
        return list(self.units)

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Each unit's weights, their mean over channels."""
        names = self.task_names
        return {
            f"stage {stage}": SharingWeights(names, names, unit.detach().mean(dim=2))
            for stage, unit in enumerate(self.units, start=1)
        }
