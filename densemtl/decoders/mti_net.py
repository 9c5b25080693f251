"""MTI-Net: multi-scale task interaction networks (Vandenhende et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import ensure_pyramid
from densemtl.config.constraints import NumChannels
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.decoders.initial_prediction import make_features, make_logits, two_blocks
from densemtl.layers.multimodal_distillation import MultiModalDistillation
from densemtl.layers.residual import SqueezeExcite, basic_block
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions

MaskSoftmax = Literal["reference_code", "paper"]

MASK_REDUCTION = 4
"""The propagation's mask is made in this part of the width."""


class MTINet(SharedBackboneDecoder):
    """PAD-Net's distillation at every scale, the coarser scales' features handed on to the finer.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head, which reads its distilled features of all scales.
        tasks: the run's.
        auxiliary_tasks: predicted at every scale and distilled from, but not refined.
        softmax: over what the propagation's mask sums to 1: the "paper" says over tasks; the
            "reference_code" views the same channels in another order, so that they are as many
            neighbouring channels of one task, and the published numbers are of that.
        pyramid_width: channels of the scales that are made where the backbone has only one, as a
            ViT; not used with other backbones.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        auxiliary_tasks: Sequence[Task] = (),
        *,
        softmax: MaskSoftmax = "reference_code",
        pyramid_width: NumChannels = 256,
    ) -> None:
        super().__init__(make_backbone, tasks)
        every = (*tasks, *auxiliary_tasks)
        self.pyramid, spec = ensure_pyramid(self.backbone.feature_info, pyramid_width)
        widths, names = spec.channels, [task.name for task in every]
        below = (*widths[1:], 0)
        self.initial_features = nn.ModuleList(
            make_features(basic_block, every, width + more, width)
            for width, more in zip(widths, below, strict=True)
        )
        self.initial_heads = nn.ModuleList(make_logits(every, width) for width in widths)
        self.feature_propagation = nn.ModuleList(
            FeaturePropagation(names, width, softmax) for width in widths[1:]
        )
        self.distillation = nn.ModuleList(
            MultiModalDistillation(self.task_names, names, width) for width in widths
        )
        self.heads = make_heads(make_head, spec, tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> final logits, and those of every scale as auxiliary."""
        features = self.pyramid(features)
        initial: dict[int, dict[str, Tensor]] = {}
        handed: dict[str, Tensor] = {}
        for scale in reversed(range(len(features))):
            initial[scale] = self._compute_initial_features(scale, features[scale], handed)
            handed = self.feature_propagation[scale - 1](initial[scale]) if scale else {}
        scales = [initial[scale] for scale in range(len(features))]
        refined = [distil(inputs) for distil, inputs in zip(self.distillation, scales, strict=True)]
        final = {task: head([maps[task] for maps in refined]) for task, head in self.heads.items()}
        return Predictions(
            final, aux_logits=[self._predict_initial(*pair) for pair in enumerate(scales)]
        )

    def _compute_initial_features(
        self, scale: int, feature: Tensor, propagated: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Each task's feature of a scale, from the backbone's and what the coarser scale handed."""
        size, modules = get_size(feature), self.initial_features[scale]
        assert isinstance(modules, nn.ModuleDict)
        return {
            task: module(
                torch.cat([feature, resize(propagated[task], size)], 1) if propagated else feature
            )
            for task, module in modules.items()
        }

    def _predict_initial(self, scale: int, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        modules = self.initial_heads[scale]
        assert isinstance(modules, nn.ModuleDict)
        return {task: module(features[task]) for task, module in modules.items()}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Only the backbone and its pyramid are shared; propagation and distillation are fusion."""
        task_parameters: dict[str, list[nn.Parameter]] = {}
        for part in (*self.initial_features, *self.initial_heads, self.heads):
            assert isinstance(part, nn.ModuleDict)
            for task, module in part.items():
                task_parameters.setdefault(task, []).extend(module.parameters())
        fusion = [*self.feature_propagation.parameters(), *self.distillation.parameters()]
        shared = [*self.backbone.parameters(), *self.pyramid.parameters()]
        return {SHARED: shared, **task_parameters, FUSION: fusion}


class FeaturePropagation(nn.Module):
    """Features of all tasks at one scale -> what each hands to the finer one (section 3.4)."""

    def __init__(self, tasks: Sequence[str], width: int, softmax: MaskSoftmax) -> None:
        super().__init__()
        self.tasks, self.softmax = tuple(tasks), softmax
        joined = len(tasks) * width
        inner = max(joined // MASK_REDUCTION, 1)
        self.mask = nn.Sequential(
            *two_blocks(basic_block, joined, inner), nn.Conv2d(inner, joined, 1)
        )
        self.reduce = basic_block(joined, width)
        self.excite = nn.ModuleDict({task: SqueezeExcite(width) for task in tasks})

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{task: BxCxHxW} -> {task: BxCxHxW}."""
        joined = torch.cat([features[task] for task in self.tasks], dim=1)
        shared = self.reduce(joined * self._normalize_mask(self.mask(joined)))
        return {task: excite(shared) + features[task] for task, excite in self.excite.items()}

    def _normalize_mask(self, mask: Tensor) -> Tensor:
        """BxNCxHxW -> the same in 0..1, summing to 1 over N of them."""
        batch, channels, height, width = mask.shape
        count = len(self.tasks)
        if self.softmax == "paper":
            view = mask.view(batch, count, channels // count, height, width).softmax(dim=1)
        else:
            view = mask.view(batch, channels // count, count, height, width).softmax(dim=2)
        return view.view(mask.shape)
