"""Attention with a kernel of positive features, in time linear in the number of pixels."""

from __future__ import annotations

from torch import Tensor

MIN_NORMALIZER = 1e-6
"""Smallest mean attention weight by which outputs are divided."""


def kernel_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Average values with weights that are the scalar products of queries and keys.

    The output at pixel i is `sum over j of a_ij v_j / sum over j of a_ij` with `a_ij = q_i . k_j`.
    The products are computed in the order `q_i . (sum over j of k_j v_j^T)`, so that the attention
    map of N x M weights is never computed: N (K C) + M (K C) multiply-adds instead of N M (K + C).
    Both factors of a sum over pixels are divided by sqrt(M), because it would overflow in float16.

    Katharopoulos et al., "Transformers are RNNs", ICML 2020, equations 4 and 5.

    Args:
        queries: non-negative features (B, K, N) of the N pixels of the output.
        keys: non-negative features (B, K, M) of the M pixels that are averaged.
        values: values (B, C, M).

    Returns:
        Averages (B, C, N).

    Example:
        >>> import torch
        >>> values = torch.tensor([[[1.0, 2.0, 6.0]]])
        >>> kernel_attention(torch.ones(1, 4, 2), torch.ones(1, 4, 3), values)
        tensor([[[3., 3.]]])
    """
    scale = keys.shape[2] ** -0.5
    keys = keys * scale
    sums = (values * scale) @ keys.mT @ queries
    normalizer = (keys * scale).sum(dim=2)[:, None] @ queries
    averages: Tensor = sums / normalizer.clamp(min=MIN_NORMALIZER)
    return averages
