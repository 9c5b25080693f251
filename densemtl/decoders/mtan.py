"""MTAN: multi-task attention network (Liu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.layers.common import SinglePixelSafeBatchNorm2d
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.layers.output_capture import capture_outputs
from densemtl.layers.residual import bottleneck
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, SharingWeights

ATTENTION_REDUCTION = 4
"""Ratio of the number of channels of a stage to the hidden width of its attention module."""


class MTAN(Decoder):
    """Multi-task attention network: a shared backbone with task-specific attention masks.

    Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019. At each backbone stage,
    a task multiplies the output of the last block by a soft mask (eq. 1 and 2). An attention module
    of the task computes the mask from the input of the last block and from the task's attended
    feature of the previous stage, refined by a block that all tasks share. The mask of the first
    stage depends on the input of the last block alone.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.

    Raises:
        ModelError: if the backbone cannot be run stage by stage.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model("mtan", backbone="test_resnet", tasks=["depth", "edge"])
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self, make_backbone: BackboneFactory, make_head: HeadFactory, tasks: Sequence[Task]
    ) -> None:
        super().__init__(tasks)
        self.backbone, self.shared_features = make_backbone(), SharedFeatures()
        widths = self.backbone.feature_info.channels
        before = (0, *widths[1:])
        entering = self._measure_entering_channels()
        self.attention = nn.ModuleDict(
            {
                task.name: nn.ModuleList(
                    _make_attention_module(enter + refined, width)
                    for enter, refined, width in zip(entering, before, widths, strict=True)
                )
                for task in tasks
            }
        )
        self.refine = nn.ModuleList(bottleneck(*pair) for pair in pairwise(widths))
        self.heads = make_heads(make_head, self.backbone.feature_info, tasks)

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features.
        """
        stages = self._share_features(self._run_stages(image))
        final = {}
        for task, head in self.heads.items():
            final[task] = head(self._attend(self.attention[task], stages))
        return Predictions(final)

    def _attend(self, attention: nn.Module, stages: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return the attended feature of a task at every stage.

        Each stage is given as the input and the output of its last block.
        """
        assert isinstance(attention, nn.ModuleList)
        strides = self.backbone.feature_info.strides
        attended: list[Tensor] = []
        for stage, (entering, leaving) in enumerate(stages):
            inputs = [resize(entering, get_size(leaving))]
            if attended:
                refined = self.refine[stage - 1](attended[-1])
                inputs.append(_downsample(refined, strides[stage] // strides[stage - 1]))
            attended.append(attention[stage](torch.cat(inputs, dim=1)) * leaving)
        return attended

    def _run_stages(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the input and the output of the last block of each stage, (B, C, H, W) each."""
        state, stages = self.backbone.run_stem(image), []
        for stage in range(len(self.backbone.feature_info)):
            entering, state = self.backbone.run_stage_with_last_input(stage, state)
            stages.append((entering, state.feature))
        return stages

    def _share_features(self, stages: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        maps = self.shared_features([feature for stage in stages for feature in stage])
        return list(zip(maps[::2], maps[1::2], strict=True))

    def _measure_entering_channels(self) -> list[int]:
        """Return the number of input channels of each stage's last block, measured by a dry run."""
        self.backbone.check_stages()
        with self.backbone.dry_run() as noise:
            stages = self._run_stages(noise)
        return [entering.shape[1] for entering, _ in stages]

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean of each task's attention mask at each stage.

        Args:
            image: normalized RGB images (B, 3, H, W) on which the masks are measured.

        Returns:
            {"attention": means in [0, 1], tasks by stages}.
        """
        stages = tuple(f"stage {i + 1}" for i in range(len(self.backbone.feature_info)))
        masks = [mask for task in self.task_names for mask in self.attention[task].children()]
        means = [mask.float().mean() for mask in capture_outputs(masks, lambda: self(image))]
        weights = torch.stack(means).view(len(self.task_names), len(stages))
        return {"attention": SharingWeights(self.task_names, stages, weights)}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; backbone and refinement are shared, and attention modules and heads
            belong to their tasks.
        """
        task_parameters = {
            task: [*self.attention[task].parameters(), *self.heads[task].parameters()]
            for task in self.task_names
        }
        shared = [*self.backbone.parameters(), *self.refine.parameters()]
        return {SHARED: shared, **task_parameters}


def _make_attention_module(channels: int, width: int) -> nn.Sequential:
    """Create an attention module: two 1x1 convolutions with bias and BN; a sigmoid (Fig. 3)."""
    inner = width // ATTENTION_REDUCTION
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1),
        SinglePixelSafeBatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, width, 1),
        SinglePixelSafeBatchNorm2d(width),
        nn.Sigmoid(),
    )


def _downsample(feature: Tensor, factor: int) -> Tensor:
    """Reduce the size of a map by max pooling over squares of `factor` pixels."""
    return F.max_pool2d(feature, factor) if factor > 1 else feature
