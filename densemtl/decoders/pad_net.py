"""PAD-Net: prediction-and-distillation network (Xu et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from densemtl.config.constraints import NumChannels
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder
from densemtl.decoders.initial_prediction import make_features, make_logits, two_blocks
from densemtl.layers.common import fuse_levels
from densemtl.layers.multimodal_distillation import MultiModalDistillation
from densemtl.layers.residual import bottleneck
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions


class PADNet(SharedBackboneDecoder):
    """PAD-Net: initial predictions of all tasks, refined by multi-modal distillation.

    Xu et al., "PAD-Net: Multi-Tasks Guided Prediction-and-Distillation Network for Simultaneous
    Depth Estimation and Scene Parsing", CVPR 2018. Each task has a feature and an initial,
    supervised prediction. Distillation adds gated messages from the features of all other tasks
    (section 3.3, module C), and the final prediction is computed from the result.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: not used. Initial and final predictions are computed by two bottleneck blocks and
            a 1x1 convolution each.
        tasks: tasks to predict.
        auxiliary_tasks: further tasks that have only an initial prediction, and whose features are
            distilled into those of `tasks`.
        feature: shared feature that all tasks read: "all" levels, resized to the finest one and
            mixed by a 1x1 convolution (for HRNet), or the "last" level (for dilated ResNets).
        width: number of channels of the feature of each task.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "pad_net", backbone="test_resnet", tasks=["depth", "edge"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
        >>> {task: tuple(logits.shape) for task, logits in predictions.aux_logits[0].items()}
        {'depth': (2, 1, 16, 16), 'edge': (2, 1, 16, 16)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        auxiliary_tasks: Sequence[Task] = (),
        *,
        feature: Literal["all", "last"] = "all",
        width: NumChannels = 256,
    ) -> None:
        super().__init__(make_backbone, tasks)
        every = (*tasks, *auxiliary_tasks)
        channels = self.backbone.feature_info.channels
        start = sum(channels) if feature == "all" else channels[-1]
        self.mix = fuse_levels(channels) if feature == "all" else None
        self.initial_features = make_features(bottleneck, every, start, width)
        self.initial_heads = make_logits(every, width)
        self.distillation = MultiModalDistillation(
            self.task_names, [task.name for task in every], width
        )
        self.final_heads = nn.ModuleDict(
            {
                task.name: nn.Sequential(
                    two_blocks(bottleneck, width, width), nn.Conv2d(width, task.channels, 1)
                )
                for task in tasks
            }
        )

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict each task twice: initially and after distillation.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Final logits of all tasks, and the initial logits as auxiliary logits.
        """
        shared = self._fuse_levels(features)
        initial = {task: module(shared) for task, module in self.initial_features.items()}
        initial_logits = {
            task: module(initial[task]) for task, module in self.initial_heads.items()
        }
        distilled = self.distillation(initial)
        final = {task: module(distilled[task]) for task, module in self.final_heads.items()}
        return Predictions(final, aux_logits=[initial_logits])

    def _fuse_levels(self, features: list[Tensor]) -> Tensor:
        """Return the shared feature of all tasks."""
        return features[-1] if self.mix is None else self.mix(features)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the fusion of its levels are shared, distillation
            is fusion, and all others belong to one task.
        """
        shared = list(self.backbone.parameters())
        shared += [] if self.mix is None else list(self.mix.parameters())
        parts = (self.initial_features, self.initial_heads, self.final_heads)
        task_parameters = {
            task: [
                parameter for part in parts if task in part for parameter in part[task].parameters()
            ]
            for task in self.initial_features
        }
        return {SHARED: shared, **task_parameters, FUSION: list(self.distillation.parameters())}
