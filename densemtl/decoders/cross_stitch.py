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
    """Cross-stitch networks: one network per task, with learned mixtures after every stage.

    Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016. After every backbone
    stage, each channel of each task is replaced by a learned weighted sum of the corresponding
    channels of all tasks (eq. 1).

    Args:
        make_backbone: factory of backbones; called once per task.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        options: options of `StageExchangeNetworks`; `alpha` is that of section 3.2 of the paper.

    Raises:
        ModelError: if the backbone cannot be run stage by stage.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "cross_stitch", backbone="test_resnet", tasks=["depth", "edge"]
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
        **options: Any,
    ) -> None:
        super().__init__(make_backbone, make_head, tasks, **options)
        start = torch.tensor(self.shares)
        self.units = nn.ParameterList(
            start[:, :, None].repeat(1, 1, channels) for channels in self.feature_info.channels
        )

    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """Mix the features of all tasks by the cross-stitch unit of a stage (eq. 1).

        Args:
            level: `STEM_LEVEL` for the output of the stem, i + 1 for the output of stage i.
            features: one map (B, C, H, W) per task, in the order of tasks.

        Returns:
            One map of the same shape per task; the output of the stem is returned unchanged.
        """
        if level == STEM_LEVEL:
            return features
        unit = self.units[level - 1][..., None, None]
        return [weighted_sum(weights.unbind(), features) for weights in unit]

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return the cross-stitch units, one tensor (T, T, C) per stage."""
        return list(self.units)

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean over channels of the weights of each cross-stitch unit.

        Args:
            image: not used.

        Returns:
            {"stage N": weights of each task's features (columns) in those of each task (rows)}.
        """
        names = self.task_names
        return {
            f"stage {stage}": SharingWeights(names, names, unit.detach().mean(dim=2))
            for stage, unit in enumerate(self.units, start=1)
        }
