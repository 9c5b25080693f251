"""Similarity of the representations that networks of different tasks learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from densemtl.errors import DataError

POOLED_SIZE = 8
"""Height and width to which feature maps are averaged before they are compared."""


def pool_features(feature: Tensor) -> Tensor:
    """Average a map to a small size and flatten it.

    Args:
        feature: maps (B, C, H, W).

    Returns:
        Vectors (B, C * 64), float32.
    """
    return F.adaptive_avg_pool2d(feature.float(), POOLED_SIZE).flatten(1)


def compute_dissimilarities(vectors: Tensor) -> Tensor:
    """Compute the representation dissimilarity matrix: 1 minus Pearson's correlation of images.

    Args:
        vectors: one vector per image, shape (K, D).

    Returns:
        Dissimilarities (K, K) in [0, 2].

    Example:
        >>> vectors = torch.tensor([[1.0, 2, 3], [2, 4, 6], [3, 2, 1]])
        >>> compute_dissimilarities(vectors)[0].round(decimals=4)
        tensor([0., 0., 2.])
    """
    normalized = F.normalize(vectors - vectors.mean(dim=1, keepdim=True), dim=1)
    return 1 - (normalized @ normalized.T).clamp(-1, 1)


def compute_affinity(dissimilarities: Sequence[Tensor]) -> NDArray[np.float64]:
    """Compute Spearman's rank correlation between the dissimilarities of several networks.

    Networks have a high affinity if they find the same pairs of images similar: Dwivedi and Roig,
    "Representation Similarity Analysis for Efficient Task Taxonomy & Transfer Learning", CVPR 2019;
    Vandenhende et al., "Branched Multi-Task Networks", BMVC 2020, section 3.1.

    Args:
        dissimilarities: one matrix (K, K) per network, K >= 3.

    Returns:
        Correlations (T, T) in [-1, 1].

    Raises:
        DataError: if all pairs of images are equally similar in a network, which has no ranks.
    """
    from scipy.stats import rankdata

    count = len(dissimilarities[0])
    rows, columns = torch.triu_indices(count, count, offset=1)
    pairs = [matrix[rows, columns].double().cpu().numpy() for matrix in dissimilarities]
    if any(not np.isfinite(values).all() or np.ptp(values) == 0 for values in pairs):
        raise DataError(
            "a network computes the same features for all images, or features that are not finite;"
            " check that the runs are trained"
        )
    correlations = np.corrcoef(np.stack([rankdata(values) for values in pairs]))
    affinity: NDArray[np.float64] = np.atleast_2d(correlations)
    return affinity
