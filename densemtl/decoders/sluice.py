"""Sluice networks (Ruder et al., AAAI 2019, "Latent multi-task architecture learning")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.config.constraints import NonNegativeFloat, SmallPositiveInt
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.stage_exchange import STEM_LEVEL, StageExchangeNetworks
from densemtl.distributed.collectives import all_reduce_batch_mean
from densemtl.errors import ConfigError, ModelError
from densemtl.ops.resize import get_size
from densemtl.tasks.base import Task
from densemtl.types import Predictions, SharingWeights


class Sluice(StageExchangeNetworks):
    """Subspaces of all tasks mix after every stage (alpha), and all stages for the head (beta).

    Alpha: each task's channels of a stage are cut into `subspaces` equal parts. A matrix a stage
    makes of all tasks' parts what each part goes on with (Fig. 1). It starts as cross-stitch
    does: each part takes from its own task, and from the part at the same place in the others.

    Beta: the paper's output layer reads the sum of all stages' outputs, each times a learned
    weight of the task's. Here stages differ in size and width, and heads may read all of them. So
    the last level of what a head reads becomes the sum, the other levels stay as they are:

        F_L <- beta_L F_L + sum over l < L of beta_l P_l(F_l)

    where P_l averages the pixels under each pixel of the last level and is a 1x1 without bias to
    its width, one a task and stage. beta_L starts at 1, the others at 0: as if there were none.

    Args:
        make_backbone: makes one network a task.
        make_head: makes one head a task.
        tasks: the run's.
        subspaces: parts of each task's channels; must divide the width of every stage.
        orthogonality: weight of a penalty, a term of training, on what a task's subspaces have in
            common: `subspace_orthogonality`, summed over tasks and stages. At 0 there is none.
        options: see `StageExchangeNetworks`; `alpha` is the share of a part.

    Raises:
        ConfigError: a penalty between subspaces of which there is one.
        ModelError: a backbone that cannot be run stage by stage, or not be cut into subspaces.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        subspaces: SmallPositiveInt = 2,
        orthogonality: NonNegativeFloat = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(make_backbone, make_head, tasks, **options)
        *earlier, last = widths = self.feature_info.channels
        _check_subspaces(subspaces, orthogonality, widths)
        self.subspaces, self.orthogonality = subspaces, orthogonality
        start = torch.kron(torch.tensor(self.shares), torch.eye(subspaces))
        self.alphas = nn.ParameterList(start.clone() for _ in widths)
        self.betas = nn.Parameter(torch.eye(len(widths))[-1].repeat(len(tasks), 1))
        self.projections = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width, last, 1, bias=False) for width in earlier) for _ in tasks
        )
        self._orthogonality_terms: list[Tensor] = []

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size; in training the penalty, if any."""
        self._orthogonality_terms.clear()
        final = super().forward(image).logits
        if not self._orthogonality_terms:
            return Predictions(final)
        penalty = self.orthogonality * torch.stack(self._orthogonality_terms).sum()
        self._orthogonality_terms.clear()  # the model is copied between steps, and graphs cannot be
        return Predictions(final, aux_losses={"orthogonality": penalty})

    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """A weighted sum of all tasks' subspaces for every subspace of each."""
        if level == STEM_LEVEL:
            return features
        if self.training and self.orthogonality > 0:
            self._orthogonality_terms += [
                subspace_orthogonality(feature, self.subspaces) for feature in features
            ]
        alpha = self.alphas[level - 1]
        batch = features[0].shape[0]  # free in an export, where `len` would be a constant
        parts = torch.stack(features, dim=1).reshape(batch, len(alpha), -1)
        rows = alpha[None].chunk(len(features), dim=1)
        return [
            (row @ parts).reshape(feature.shape)
            for row, feature in zip(rows, features, strict=True)
        ]

    def decode_pyramids(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Each task's pyramid, its last level mixed from all by beta -> its logits."""
        inputs = zip(self.betas, self.projections, pyramids, strict=True)
        return super().decode_pyramids([_mix_last_level(*args) for args in inputs])

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Alphas, betas, and the projections that beta weighs."""
        return [*self.alphas, self.betas, *self.projections.parameters()]

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Each stage's alpha between `task.subspace`s, and the betas."""
        parts = tuple(f"{t}.{part + 1}" for t in self.task_names for part in range(self.subspaces))
        stages = tuple(f"stage {stage + 1}" for stage in range(len(self.alphas)))
        alphas = {
            stage: SharingWeights(parts, parts, alpha.detach())
            for stage, alpha in zip(stages, self.alphas, strict=True)
        }
        return {**alphas, "beta": SharingWeights(self.task_names, stages, self.betas.detach())}


def subspace_orthogonality(feature: Tensor, subspaces: int) -> Tensor:
    """||G_i^T G_j||_F^2, summed over pairs of subspaces, of a size that no resolution changes.

    G has a row for every pixel of the batch and a column a channel of the subspace. Each entry of
    G_i^T G_j is divided by the number of pixels, and the norm by that of entries: the mean, over
    pairs of channels, of their squared mean product.

    Args:
        feature: BxCxHxW.
        subspaces: at least 2 equal parts of C.
    """
    pixels = feature.shape[2] * feature.shape[3]
    scaled = feature.flatten(2) / pixels**0.5  # before the sum, which half precision cannot hold
    pairs = combinations(scaled.chunk(subspaces, dim=1), 2)
    products = [all_reduce_batch_mean((first @ second.mT).mean(dim=0)) for first, second in pairs]
    return torch.stack([product.float().square().mean() for product in products]).sum()


def _mix_last_level(beta: Tensor, projections: nn.Module, pyramid: list[Tensor]) -> list[Tensor]:
    """A pyramid whose last level is the weighted sum of all."""
    *earlier, last = pyramid
    mixed = beta[-1] * last
    for weight, project, level in zip(beta[:-1], projections.children(), earlier, strict=True):
        mixed = mixed + weight * project(F.adaptive_avg_pool2d(level, get_size(last)))
    return [*earlier, mixed]


def _check_subspaces(subspaces: int, orthogonality: float, widths: Sequence[int]) -> None:
    if orthogonality and subspaces == 1:
        raise ConfigError(
            f"decoder.orthogonality: {orthogonality} needs 2 subspaces or more, not {subspaces}"
        )
    if any(width % subspaces for width in widths):
        raise ModelError(
            f"decoder.subspaces: {subspaces} does not divide the widths {list(widths)} of the"
            f" backbone's stages; choose a divisor of {gcd(*widths)}"
        )
