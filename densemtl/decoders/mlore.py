"""MLoRE: mixture of low-rank experts (Yang et al., CVPR 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import is_single_scale
from densemtl.config.constraints import NonNegativeFloat, NumChannels, SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.decoders.mlore_block import ExpertBlock, LevelFusion, TaskMaps
from densemtl.decoders.mlore_router import compute_gate_variation
from densemtl.errors import ConfigError
from densemtl.layers.common import conv_bn_gelu
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, FeatureInfo, Predictions, SharingWeights

SINGLE_SCALE_GAIN = 4
"""Size of the output relative to the maps of a single-scale backbone."""

BLOCKS = 2
"""Number of blocks in sequence at each level."""


class MLoRE(SharedBackboneDecoder):
    """MLoRE: each task mixes linear experts of different ranks, which all tasks share.

    Yang et al., "Multi-Task Dense Prediction via Mixture of Low-Rank Experts", CVPR 2024. Each
    level of the backbone is projected to `width` channels and passes two blocks (`ExpertBlock`):
    for each image and task, a router selects `top_k` of the experts; a convolution of all tasks and
    a low-rank convolution of the task are added. The levels of a task are summed with weights per
    pixel; a 3x3 convolution and the head follow.

    Experts have no activation, so that all convolutions of a block merge into one per image and
    task. This is done in evaluation mode without gradients, up to rounding with the same result.
    In training, all experts run.

    The output has the size of the finest level of a feature pyramid, and 4 times the size of the
    maps of a ViT. The published router has a linear layer over all pixels, which accepts one size
    only; here, an `AttentionPool` replaces it.

    | | `width` | `min_rank` | `rank_step` | `task_rank` | `renormalize` | `load_balance` |
    | --- | ---: | ---: | ---: | ---: | --- | ---: |
    | NYUD-v2, ViT-L | 768 | 16 | 16 | 16 | true | 5e-4 |
    | PASCAL-Context, ViT-L | 452 | 16 | 8 | 72 | false | 3e-4 |
    | PASCAL-Context, ViT-B (default) | 640 | 16 | 8 | 64 | false | 1e-4 |
    | PASCAL-Context, ViT-S | 192 | 8 | 4 | 32 | | |

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads, which read one map of `width` channels; called once per task.
            The published head is `linear`.
        tasks: tasks to predict.
        width: number of channels of all features. The 3x3 convolution of each task at the output
            takes a large part of the computation.
        experts: number of experts per block.
        min_rank: rank of the first expert.
        rank_step: difference of the ranks of one expert and the next.
        task_rank: rank of the convolution of each task in a block.
        top_k: number of experts that are selected for each image.
        renormalize: whether gates are the softmax over the selected experts, instead of over all
            experts, so that the gates of the selected ones sum to less than 1.
        load_balance: weight of the squared coefficients of variation of the mean gates of the
            experts, summed over levels and blocks, which keeps all experts in use.

    Raises:
        ConfigError: if more experts are selected than there are.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "mlore", "width": 16, "experts": 3, "top_k": 2},
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
        width: NumChannels = 640,
        experts: SmallPositiveInt = 15,
        min_rank: SmallPositiveInt = 16,
        rank_step: SmallPositiveInt = 8,
        task_rank: SmallPositiveInt = 64,
        top_k: SmallPositiveInt = 9,
        renormalize: bool = False,
        load_balance: NonNegativeFloat = 1e-4,
    ) -> None:
        super().__init__(make_backbone, tasks)
        if top_k > experts:
            raise ConfigError(f"decoder.top_k: must be at most decoder.experts={experts}")
        info = self.backbone.feature_info
        self.ranks = tuple(min_rank + index * rank_step for index in range(experts))
        self.load_balance = load_balance
        self.gain = SINGLE_SCALE_GAIN if is_single_scale(info) else 1
        self.projections = nn.ModuleList(nn.Conv2d(each, width, 1) for each in info.channels)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                ExpertBlock(
                    self.task_names, width, self.ranks, task_rank, top_k, renormalize=renormalize
                )
                for _ in range(BLOCKS)
            )
            for _ in info.channels
        )
        self.fusions = nn.ModuleDict({t: LevelFusion(width, len(info)) for t in self.task_names})
        self.outputs = nn.ModuleDict({task: conv_bn_gelu(width) for task in self.task_names})
        stride = math.ceil(info.strides[0] / self.gain)
        self.heads = make_heads(make_head, FeatureInfo((width,), (stride,)), tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Mix the experts at every level and predict each task.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits of all tasks, and the load-balancing loss in training if it is enabled.
        """
        levels, gates = self._run_blocks(features)
        size = get_size(features[0])
        logits = {}
        for task, head in self.heads.items():
            fused = self.fusions[task]([resize(level[task], size) for level in levels])
            enlarged = resize(fused, (self.gain * size[0], self.gain * size[1]))
            logits[task] = head([self.outputs[task](enlarged)])
        return Predictions(logits, aux_losses=self._compute_aux_losses(gates))

    def _run_blocks(self, features: Sequence[Tensor]) -> tuple[list[TaskMaps], list[list[Tensor]]]:
        """Return the features of all tasks at each level, and the gates of each block per level."""
        levels: list[TaskMaps] = []
        gates: list[list[Tensor]] = []
        for feature, project, blocks in zip(features, self.projections, self.blocks, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            maps: TaskMaps = dict.fromkeys(self.task_names, project(feature))
            gates.append([])
            for block in blocks:
                maps, block_gates = block(maps)
                gates[-1].append(block_gates)
            levels.append(maps)
        return levels, gates

    def _compute_aux_losses(self, gates: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        """Return the weighted load-balancing loss of all levels and blocks in training."""
        if not (self.training and self.load_balance):
            return {}
        losses = [compute_gate_variation(each.flatten(0, 1)) for level in gates for each in level]
        return {"load_balance": self.load_balance * torch.stack(losses).sum()}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the projections of its levels are shared, experts
            and convolutions of all tasks are fusion, and all others belong to one task.
        """
        blocks = [each for each in self.modules() if isinstance(each, ExpertBlock)]
        parts = [self.fusions, self.outputs, self.heads, *(block.branches for block in blocks)]
        return {
            SHARED: [*self.backbone.parameters(), *self.projections.parameters()],
            **{
                task: [each for part in parts for each in part[task].parameters()]
                for task in self.task_names
            },
            FUSION: [
                each
                for block in blocks
                for part in (block.experts, block.generic)
                for each in part.parameters()
            ],
        }

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean gates of each block at each level.

        Args:
            image: images as for `forward`, on which gates are measured.

        Returns:
            {"block N level L": mean gates over images of the experts (columns) in each task}.
        """
        _, gates = self._run_blocks(self.compute_shared_features(image))
        sources = tuple(f"rank {rank}" for rank in self.ranks)
        return {
            f"block {number} level {level}": SharingWeights(
                self.task_names, sources, each.mean(dim=1).detach()
            )
            for level, of_level in enumerate(gates, start=1)
            for number, each in enumerate(of_level, start=1)
        }
