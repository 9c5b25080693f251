"""PAP-Net: pattern-affinitive propagation (Zhang et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.config.constraints import (
    NonNegativeFloat,
    NumChannels,
    NumPairedPixels,
    OpenUnitInterval,
    SmallPositiveInt,
)
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.initial_prediction import InitialPredictionDecoder, two_blocks
from densemtl.layers.common import weighted_sum
from densemtl.layers.kernel_attention import kernel_attention
from densemtl.layers.residual import bottleneck
from densemtl.tasks.base import Task
from densemtl.types import AffinityFeatures, Predictions, SharingWeights


class PAPNet(InitialPredictionDecoder):
    """PAP-Net: the pixels that belong together in one task guide the diffusion in all tasks.

    Zhang et al., "Pattern-Affinitive Propagation across Depth, Surface Normal and Semantic
    Segmentation", CVPR 2019. Each task has a feature and an initial, supervised prediction, as in
    PAD-Net. From a reduced feature Y_t, each task computes the affinity of every pair of pixels,
    `A_t = D^-1 X_t X_t^T` with the L2-normalized features X_t and the row sums D (section 3.2). The
    affinities of all tasks are mixed by learned weights (cross-task propagation, section 3.3), and
    the feature of each task is diffused along its mixture (task-specific propagation, section 3.4):

        Y_t <- beta_t sum over s of w_ts A_s Y_t + (1 - beta_t) Y_t^0

    Affinities are applied by `kernel_attention`, so that no map of all pairs of pixels is computed.
    X_t is softplus(Y_t) before the normalization: affinities must not be negative, as otherwise row
    sums may be close to 0.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: not used. Initial and final predictions are computed by two bottleneck blocks and
            a 1x1 convolution each.
        tasks: tasks to predict.
        auxiliary_tasks: further tasks that have only an initial prediction, and whose affinities
            are mixed into those of `tasks`.
        feature: shared feature that all tasks read: "all" levels, resized to the finest one and
            mixed by a 1x1 convolution (for HRNet), or the "last" level (for dilated ResNets).
        width: number of channels of the feature of each task.
        affinity_width: number of channels of the features that are compared and diffused.
        steps: number of diffusion steps.
        beta: share of the diffused feature in each step.
        learn_beta: whether each task learns its own share, which starts at `beta`.
        affinity_weight: weight of a loss that compares the affinity of pairs of pixels with their
            labels (`densemtl.tasks.pixel_affinity`); 0 for none, as in the code of the authors.
        affinity_pixels: number of random pixels per image whose pairs are compared.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "pap_net", backbone="test_resnet", tasks=["depth", "edge"]
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
        auxiliary_tasks: Sequence[Task] = (),
        *,
        feature: Literal["all", "last"] = "all",
        width: NumChannels = 256,
        affinity_width: NumChannels = 128,
        steps: SmallPositiveInt = 3,
        beta: OpenUnitInterval = 0.05,
        learn_beta: bool = False,
        affinity_weight: NonNegativeFloat = 0.0,
        affinity_pixels: NumPairedPixels = 1024,
    ) -> None:
        super().__init__(make_backbone, tasks, auxiliary_tasks, feature, width)
        self.affinity_weight, self.affinity_pixels = affinity_weight, affinity_pixels
        every = (*tasks, *auxiliary_tasks)
        self.reductions = nn.ModuleDict(
            {task.name: nn.Conv2d(width, affinity_width, 1) for task in every}
        )
        self.diffusion = AffinityDiffusion(
            self.task_names, [task.name for task in every], steps, beta, learn_beta=learn_beta
        )
        self.final_heads = nn.ModuleDict(
            {
                task.name: nn.Sequential(
                    two_blocks(bottleneck, affinity_width, affinity_width),
                    nn.Conv2d(affinity_width, task.channels, 1),
                )
                for task in tasks
            }
        )

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict each task twice: initially and after diffusion.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Final logits of all tasks, and the initial logits as auxiliary logits.
        """
        initial, initial_logits = self.predict_initial(features)
        reduced = {task: module(initial[task]) for task, module in self.reductions.items()}
        diffused = self.diffusion(reduced)
        final = {task: module(diffused[task]) for task, module in self.final_heads.items()}
        return Predictions(
            final,
            aux_logits=[initial_logits],
            affinity_features=self._list_affinity_features(reduced) if self.affinity_weight else {},
        )

    def _list_affinity_features(self, reduced: Mapping[str, Tensor]) -> dict[str, AffinityFeatures]:
        """Return the features from which the affinities of each task are computed."""
        pixels, weight = self.affinity_pixels, self.affinity_weight
        return {
            task: AffinityFeatures(normalize(feature), pixels, weight)
            for task, feature in reduced.items()
        }

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and the fusion of its levels are shared, the weights
            of the diffusion are fusion, and all others belong to one task.
        """
        return self.make_parameter_groups([self.reductions, self.final_heads], self.diffusion)

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the weights by which the affinities of all tasks are mixed.

        Args:
            image: not used.

        Returns:
            {"affinity": weights of the sources (columns) for each task (rows)}.
        """
        sources = tuple(self.initial_features)
        weights = self.diffusion.compute_weights().detach()
        return {"affinity": SharingWeights(self.task_names, sources, weights)}


class AffinityDiffusion(nn.Module):
    """Diffusion of task features along learned mixtures of the pixel affinities of all tasks.

    Zhang et al., "Pattern-Affinitive Propagation across Depth, Surface Normal and Semantic
    Segmentation", CVPR 2019, sections 3.3 and 3.4.

    Args:
        targets: names of the tasks whose features are diffused.
        sources: names of the tasks whose affinities are mixed; they include the targets.
        steps: number of diffusion steps.
        beta: share of the diffused feature in each step.
        learn_beta: whether each target learns its own share, which starts at `beta`.

    Example:
        >>> import torch
        >>> diffusion = AffinityDiffusion(["depth"], ["depth", "edge"], steps=3, beta=0.05)
        >>> features = {name: torch.randn(2, 4, 8, 8) for name in ("depth", "edge")}
        >>> {name: tuple(diffused.shape) for name, diffused in diffusion(features).items()}
        {'depth': (2, 4, 8, 8)}
    """

    def __init__(
        self,
        targets: Sequence[str],
        sources: Sequence[str],
        steps: int,
        beta: float,
        *,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        self.targets, self.steps = tuple(targets), steps
        self.mixture = nn.Parameter(torch.zeros(len(targets), len(sources)))
        beta_logits = torch.full((len(targets),), beta).logit()
        self.beta_logits: Tensor
        if learn_beta:
            self.beta_logits = nn.Parameter(beta_logits)
        else:
            self.register_buffer("beta_logits", beta_logits)

    def compute_weights(self) -> Tensor:
        """Return the weights of the sources (columns) for each target (rows); rows sum to 1."""
        return self.mixture.softmax(dim=1)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Diffuse the features of all targets.

        Args:
            features: {source: map (B, C, H, W)}, in the order of the sources.

        Returns:
            {target: diffused map (B, C, H, W)}.
        """
        points = [normalize(feature).flatten(2) for feature in features.values()]
        rows = zip(self.targets, self.compute_weights(), self.beta_logits.sigmoid(), strict=True)
        diffused = {}
        for target, weights, beta in rows:
            start = features[target].flatten(2)
            current = start
            for _ in range(self.steps):
                averages = [kernel_attention(each, each, current) for each in points]
                current = beta * weighted_sum(list(weights), averages) + (1 - beta) * start
            diffused[target] = current.view_as(features[target])
        return diffused


def normalize(feature: Tensor) -> Tensor:
    """Return the non-negative unit vectors of a map (B, C, H, W), whose products are affinities."""
    return F.normalize(F.softplus(feature), dim=1)
