"""PAD-Net: prediction-and-distillation network (Xu et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from densemtl.config.constraints import NumChannels
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.initial_prediction import InitialPredictionDecoder, two_blocks
from densemtl.layers.multimodal_distillation import MultiModalDistillation
from densemtl.layers.residual import bottleneck
from densemtl.tasks.base import Task
from densemtl.types import Predictions


class PADNet(InitialPredictionDecoder):
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
        super().__init__(make_backbone, tasks, auxiliary_tasks, feature, width)
        every = (*tasks, *auxiliary_tasks)
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
        initial, initial_logits = self.predict_initial(features)
        distilled = self.distillation(initial)
        final = {task: module(distilled[task]) for task, module in self.final_heads.items()}
        return Predictions(final, aux_logits=[initial_logits])

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the fusion of its levels are shared, distillation
            is fusion, and all others belong to one task.
        """
        return self.make_parameter_groups([self.final_heads], self.distillation)
