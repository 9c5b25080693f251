"""Task prompts: one token per task in a ViT, as in TaskPrompter (Ye and Xu, ICLR 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from densemtl.backbones.prompt_tokens import (
    PromptedLevel,
    get_num_heads,
    prepare_prompts,
    run_with_prompts,
)
from densemtl.config.constraints import NumChannels
from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.decoders.task_prompts_layers import LevelReading, make_prompt
from densemtl.layers.common import conv_bn_gelu
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, FeatureInfo, Predictions, SharingWeights

GAIN = 4
"""Size of the output relative to the maps of the backbone."""


class TaskPrompts(Decoder):
    r"""One prompt token per task, which passes through a ViT and selects features by its attention.

    Ye and Xu, "TaskPrompter: Spatial-Channel Multi-Task Prompting for Dense Scene Understanding",
    ICLR 2023. A trained token per task is added to the tokens of the image, and all blocks read and
    change it. At the end of each level, the attention scores of the pixels for the prompt of a task
    weigh the channels of each attention head for this task (`PromptReading`). With
    `channel_windows`, channels are also weighed by their similarity to a map that is computed from
    the prompt (`ChannelScores`). With `cross_task`, the scores of the prompts for each other give
    weights by which a task sums the features of all tasks (`CrossTaskWeights`). The levels of a
    task are added and enlarged to 4 times their size; a 3x3 convolution and the head follow.

    Scores are divided by the square root of the width of a head, as in the softmax. Published code
    uses the products themselves, which exceed the range of fp16 more easily. Its channel part has
    two layers over all pixels in each block, which accept one size of images; here, one layer per
    level computes a small map that is resized, and the prompt does not read this map. The class
    token is kept beside the prompts, and the last level is not normalized.

    | | `level_width` | `width` | `cross_task` | `channel_windows` |
    | --- | ---: | ---: | --- | ---: |
    | NYUD-v2, ViT-L | 768 | 768 | false | 4 |
    | PASCAL-Context, ViT-B | 780 | 1024 | true | 4 |
    | PASCAL-Context, ViT-L | 300 | 350 | true | 1 |
    | default | 300 | 350 | true | 0 |

    Args:
        make_backbone: factory of backbones; called once. The backbone must be a plain ViT of timm,
            also DeiT, DINOv2, DINOv3 and EVA-02.
        make_head: factory of heads, which read one map of `width` channels; called once per task.
            The published head is `linear`.
        tasks: tasks to predict.
        level_width: number of channels of the features that are read from each level.
        width: number of channels of the features of each task. The 3x3 convolution of each task at
            the output takes a large part of the computation.
        cross_task: whether tasks exchange features.
        channel_windows: number of windows along each side of the map in which channels are compared
            with the prompts; 0 leaves out the channel part.

    Raises:
        ModelError: if the backbone is not a plain ViT.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "task_prompts", "level_width": 8, "width": 16},
        ...     backbone="test_vit",
        ...     head="linear",
        ...     tasks=["depth", "edge"],
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
        level_width: NumChannels = 300,
        width: NumChannels = 350,
        cross_task: bool = True,
        channel_windows: Annotated[int, Field(ge=0, le=16)] = 0,
    ) -> None:
        super().__init__(tasks)
        self.backbone = make_backbone()
        prepare_prompts(self.backbone, len(tasks))
        info, names = self.backbone.feature_info, self.task_names
        self.shared_features = SharedFeatures()
        self.prompts = nn.ParameterDict({task: make_prompt(info.channels[0]) for task in names})
        heads = get_num_heads(self.backbone)
        self.readings = nn.ModuleList(
            LevelReading(
                names,
                channels,
                heads,
                level_width,
                width,
                cross_task=cross_task,
                channel_windows=channel_windows,
            )
            for channels in info.channels
        )
        self.outputs = nn.ModuleDict({task: conv_bn_gelu(width) for task in names})
        stride = -(-info.strides[0] // GAIN)
        self.heads = make_heads(make_head, FeatureInfo((width,), (stride,)), tasks)

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at 4 times the size of the maps of the backbone.
        """
        return self.decode_levels(self._run_backbone(image))

    def decode_levels(self, levels: Sequence[PromptedLevel]) -> Predictions:
        """Predict all tasks from the levels of the backbone.

        Args:
            levels: features and scores of all levels, for the prompts of all tasks.

        Returns:
            Logits of all tasks at 4 times the size of the maps of the backbone.
        """
        features = self.readings[0](levels[0])
        for reading, level in zip(self.readings[1:], levels[1:], strict=True):
            read = reading(level)
            features = {task: features[task] + read[task] for task in self.task_names}
        logits = {}
        for task, head in self.heads.items():
            height, width = get_size(features[task])
            enlarged = resize(features[task], (GAIN * height, GAIN * width))
            logits[task] = head([self.outputs[task](enlarged)])
        return Predictions(logits)

    def _run_backbone(self, image: Tensor) -> list[PromptedLevel]:
        """Return the levels of the backbone with the prompts of all tasks."""
        prompts = torch.stack([self.prompts[task] for task in self.task_names])
        levels = run_with_prompts(self.backbone, image, prompts)
        shared = iter(self.shared_features([each for level in levels for each in level]))
        return [PromptedLevel(*islice(shared, len(level))) for level in levels]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the layers of the channel scores are shared, the
            layers that weigh the features of other tasks are fusion, and all others belong to one
            task. As the features of the image depend on all prompts, the losses of other tasks
            train the prompt of a task as well.
        """
        readings = [each for each in self.readings if isinstance(each, LevelReading)]
        parts = [self.outputs, self.heads, *(reading.tasks for reading in readings)]
        channels = [each for reading in readings for each in reading.channel_scores.parameters()]
        return {
            SHARED: [*self.backbone.parameters(), *channels],
            **{
                task: [
                    self.prompts[task],
                    *(each for part in parts for each in part[task].parameters()),
                ]
                for task in self.task_names
            },
            FUSION: [each for reading in readings for each in reading.cross_task.parameters()],
        }

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean weights of the features of all tasks at each level.

        Args:
            image: images as for `forward`, on which weights are measured.

        Returns:
            {"level L": mean weights over images of the features of each task (columns) in each task
            (rows)}; empty without `cross_task`.
        """
        locations = {}
        for number, level in enumerate(self._run_backbone(image), start=1):
            reading = self.readings[number - 1]
            assert isinstance(reading, LevelReading)
            if reading.cross_task:
                weights = reading.compute_weights(level).mean(dim=0).detach()
                locations[f"level {number}"] = SharingWeights(
                    self.task_names, self.task_names, weights
                )
        return locations
