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
    """Sluice networks: one network per task, with learned mixtures of subspaces and of stages.

    Ruder et al., "Latent Multi-task Architecture Learning", AAAI 2019.

    Alpha: the channels of each task at each stage are split into `subspaces` equal parts. After
    every stage, each part is replaced by a weighted sum of the parts of all tasks, with one learned
    matrix of weights per stage (Fig. 1). The matrix is initialized as in cross-stitch networks:
    each part is mixed only with the corresponding parts of the other tasks.

    Beta: the output layer of the paper reads the sum of the outputs of all stages, each multiplied
    by a learned weight of the task. Here, stages differ in size and width, and heads may read all
    levels. Therefore only the last level that a head reads is replaced by the sum:

        F_L <- beta_L F_L + sum over l < L of beta_l P_l(F_l)

    P_l averages the pixels under each pixel of the last level and applies a 1x1 convolution without
    bias, one per task and stage, to the width of the last level. beta_L is initialized as 1 and
    the others as 0, so that the sum is initially the last level.

    Args:
        make_backbone: factory of backbones; called once per task.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        subspaces: number of parts into which the channels of each task are split; must divide the
            number of channels of every stage.
        orthogonality: weight of an auxiliary training loss, `subspace_orthogonality` summed over
            tasks and stages; 0 disables it.
        options: options of `StageExchangeNetworks`; `alpha` is the initial weight of a task's own
            part.

    Raises:
        ConfigError: if the orthogonality loss is enabled with a single subspace.
        ModelError: if the backbone cannot be run stage by stage, or if its channels cannot be split
            into `subspaces` parts.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model("sluice", backbone="test_resnet", tasks=["depth", "edge"])
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
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features, and the orthogonality loss in
            training if it is enabled.
        """
        self._orthogonality_terms.clear()
        final = super().forward(image).logits
        if not self._orthogonality_terms:
            return Predictions(final)
        penalty = self.orthogonality * torch.stack(self._orthogonality_terms).sum()
        self._orthogonality_terms.clear()  # models are copied between steps, but graphs cannot be
        return Predictions(final, aux_losses={"orthogonality": penalty})

    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """Mix the subspaces of all tasks by the alpha matrix of a stage.

        Args:
            level: `STEM_LEVEL` for the output of the stem, i + 1 for the output of stage i.
            features: one map (B, C, H, W) per task, in the order of tasks.

        Returns:
            One map of the same shape per task; the output of the stem is returned unchanged.
        """
        if level == STEM_LEVEL:
            return features
        if self.training and self.orthogonality > 0:
            self._orthogonality_terms += [
                subspace_orthogonality(feature, self.subspaces) for feature in features
            ]
        alpha = self.alphas[level - 1]
        batch = features[0].shape[0]  # dynamic in an export; `len` would be a constant
        parts = torch.stack(features, dim=1).reshape(batch, len(alpha), -1)
        rows = alpha[None].chunk(len(features), dim=1)
        return [
            (row @ parts).reshape(feature.shape)
            for row, feature in zip(rows, features, strict=True)
        ]

    def decode_pyramids(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Mix all levels into the last one by beta, and predict each task.

        Args:
            pyramids: one list of maps (B, C_l, H_l, W_l), finest first, per task.

        Returns:
            {task: logits}.
        """
        inputs = zip(self.betas, self.projections, pyramids, strict=True)
        return super().decode_pyramids([_mix_last_level(*args) for args in inputs])

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return alphas, betas, and the projections P_l."""
        return [*self.alphas, self.betas, *self.projections.parameters()]

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the alpha matrix of each stage, and the betas.

        Args:
            image: not used.

        Returns:
            {"stage N": weights between all subspaces, named `TASK.1`, `TASK.2` and so on, "beta":
            weights of stages (columns) for each task (rows)}.
        """
        parts = tuple(f"{t}.{part + 1}" for t in self.task_names for part in range(self.subspaces))
        stages = tuple(f"stage {stage + 1}" for stage in range(len(self.alphas)))
        alphas = {
            stage: SharingWeights(parts, parts, alpha.detach())
            for stage, alpha in zip(stages, self.alphas, strict=True)
        }
        return {**alphas, "beta": SharingWeights(self.task_names, stages, self.betas.detach())}


def subspace_orthogonality(feature: Tensor, subspaces: int) -> Tensor:
    """Compute the orthogonality loss `||G_i^T G_j||_F^2`, summed over pairs of subspaces i < j.

    Ruder et al., "Latent Multi-task Architecture Learning", AAAI 2019. G_i has one row per pixel of
    the batch and one column per channel of subspace i. Each entry of G_i^T G_j is divided by the
    number of pixels, and the squared norm by the number of entries, so that the loss does not
    depend on the resolution: it is the mean over pairs of channels of their squared mean product.

    Args:
        feature: map (B, C, H, W); means are taken over the batches of all ranks.
        subspaces: number of subspaces, at least 2; must divide C.

    Returns:
        A scalar; 0 if the channels of different subspaces are orthogonal.

    Example:
        >>> feature = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
        >>> subspace_orthogonality(feature, subspaces=2)
        tensor(0.)
        >>> subspace_orthogonality(torch.ones(1, 2, 1, 2), subspaces=2).round(decimals=4)
        tensor(1.)
    """
    pixels = feature.shape[2] * feature.shape[3]
    scaled = (
        feature.flatten(2) / pixels**0.5
    )  # before summing, because the sum would overflow in fp16
    pairs = combinations(scaled.chunk(subspaces, dim=1), 2)
    products = [all_reduce_batch_mean((first @ second.mT).mean(dim=0)) for first, second in pairs]
    return torch.stack([product.float().square().mean() for product in products]).sum()


def _mix_last_level(beta: Tensor, projections: nn.Module, pyramid: list[Tensor]) -> list[Tensor]:
    """Return the pyramid with its last level replaced by the weighted sum of all levels."""
    *earlier, last = pyramid
    mixed = beta[-1] * last
    for weight, project, level in zip(beta[:-1], projections.children(), earlier, strict=True):
        mixed = mixed + weight * project(F.adaptive_avg_pool2d(level, get_size(last)))
    return [*earlier, mixed]


def _check_subspaces(subspaces: int, orthogonality: float, widths: Sequence[int]) -> None:
    """Raise an error if the channels cannot be split, or if the loss needs more subspaces."""
    if orthogonality and subspaces == 1:
        raise ConfigError(
            f"decoder.orthogonality: {orthogonality} needs 2 subspaces or more, not {subspaces};"
            " increase decoder.subspaces, or set decoder.orthogonality to 0"
        )
    if any(width % subspaces for width in widths):
        raise ModelError(
            f"decoder.subspaces: {subspaces} does not divide the widths {list(widths)} of the"
            f" backbone's stages; choose a divisor of {gcd(*widths)}"
        )
