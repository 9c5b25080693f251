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
"""Channels over which the mask of the feature propagation is normalized; see `MTINet`."""

MASK_REDUCTION = 4
"""Ratio of the number of concatenated channels to the hidden width of the mask module."""


class MTINet(SharedBackboneDecoder):
    """MTI-Net: multi-modal distillation at every scale, with feature propagation between scales.

    Vandenhende et al., "MTI-Net: Multi-Scale Task Interaction Networks for Multi-Task Learning",
    ECCV 2020. At each scale, from coarsest to finest, each task has a feature and an initial,
    supervised prediction. The feature is computed from the backbone feature of the scale and from
    the feature that the next coarser scale propagates (section 3.4). The features of each scale are
    refined by the distillation of PAD-Net, and the heads read the refined features of all scales.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads, which read the refined features of all scales; called once per
            task.
        tasks: tasks to predict.
        auxiliary_tasks: further tasks that have only initial predictions, and whose features are
            propagated and distilled into those of `tasks`.
        softmax: normalization of the mask of the feature propagation. With "paper", the mask sums
            to 1 over the N tasks. With "reference_code", the channels are grouped in another order,
            so that it sums to 1 over N consecutive channels of one task; the published results
            were obtained this way.
        pyramid_width: number of channels of each scale of the feature pyramid that is created for
            backbones with a single scale, such as ViTs; not used with other backbones.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "mti_net", backbone="test_resnet", tasks=["depth", "edge"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
        >>> [tuple(logits["depth"].shape) for logits in predictions.aux_logits]
        [(2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
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
        """Predict each task initially at every scale, and finally from the distilled features.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Final logits of all tasks, and the initial logits of each scale as auxiliary logits,
            finest first.
        """
        features = self.pyramid(features)
        initial: dict[int, dict[str, Tensor]] = {}
        propagated: dict[str, Tensor] = {}
        for scale in reversed(range(len(features))):
            initial[scale] = self._compute_initial_features(scale, features[scale], propagated)
            propagated = self.feature_propagation[scale - 1](initial[scale]) if scale else {}
        scales = [initial[scale] for scale in range(len(features))]
        refined = [
            distill(inputs) for distill, inputs in zip(self.distillation, scales, strict=True)
        ]
        final = {task: head([maps[task] for maps in refined]) for task, head in self.heads.items()}
        return Predictions(
            final, aux_logits=[self._predict_initial(*pair) for pair in enumerate(scales)]
        )

    def _compute_initial_features(
        self, scale: int, feature: Tensor, propagated: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the initial feature of each task at a scale.

        It is computed from the backbone feature and the features propagated from the next coarser
        scale; `propagated` is empty at the coarsest scale.
        """
        size, modules = get_size(feature), self.initial_features[scale]
        assert isinstance(modules, nn.ModuleDict)
        return {
            task: module(
                torch.cat([feature, resize(propagated[task], size)], 1) if propagated else feature
            )
            for task, module in modules.items()
        }

    def _predict_initial(self, scale: int, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the initial logits of each task at a scale."""
        modules = self.initial_heads[scale]
        assert isinstance(modules, nn.ModuleDict)
        return {task: module(features[task]) for task, module in modules.items()}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and its feature pyramid are shared, feature
            propagation and distillation are fusion, and all others belong to one task.
        """
        task_parameters: dict[str, list[nn.Parameter]] = {}
        for part in (*self.initial_features, *self.initial_heads, self.heads):
            assert isinstance(part, nn.ModuleDict)
            for task, module in part.items():
                task_parameters.setdefault(task, []).extend(module.parameters())
        fusion = [*self.feature_propagation.parameters(), *self.distillation.parameters()]
        shared = [*self.backbone.parameters(), *self.pyramid.parameters()]
        return {SHARED: shared, **task_parameters, FUSION: fusion}


class FeaturePropagation(nn.Module):
    """Feature propagation module, which passes task features to the next finer scale.

    Vandenhende et al., "MTI-Net", ECCV 2020, section 3.4. A mask, computed from the concatenated
    features of all tasks and normalized by a softmax, weighs these features, and a residual block
    reduces them to one shared feature. For each task, squeeze-and-excitation selects channels of
    the shared feature, and the feature of the task is added.

    Args:
        tasks: names of the N tasks.
        width: number of channels of the feature of each task.
        softmax: normalization of the mask; see `MTINet`.
    """

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
        """Compute the features that are passed to the next finer scale.

        Args:
            features: {task: map (B, C, H, W)}.

        Returns:
            {task: map (B, C, H, W)}.
        """
        joined = torch.cat([features[task] for task in self.tasks], dim=1)
        shared = self.reduce(joined * self._normalize_mask(self.mask(joined)))
        return {task: excite(shared) + features[task] for task, excite in self.excite.items()}

    def _normalize_mask(self, mask: Tensor) -> Tensor:
        """Normalize a mask (B, N * C, H, W) so that groups of N channels sum to 1."""
        batch, channels, height, width = mask.shape
        count = len(self.tasks)
        if self.softmax == "paper":
            view = mask.view(batch, count, channels // count, height, width).softmax(dim=1)
        else:
            view = mask.view(batch, channels // count, count, height, width).softmax(dim=2)
        return view.view(mask.shape)
