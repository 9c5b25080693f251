"""Boundaries of a picture cut into regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.ops.thinning import thin


def find_region_boundaries(
    regions: NDArray[np.integer], ignore_index: int | None = None
) -> NDArray[np.bool_]:
    """HxW region ids -> where a pixel differs from its east, south or south-east one, thinned.

    The rule of the Berkeley benchmark (Martin et al. 2004).

    Args:
        regions: any ids; a binary map of lines counts as regions too (NYUD under `modern`).
        ignore_index: an id that forms no boundary with others.
    """
    differs = np.zeros(regions.shape, bool)
    views = (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
    )
    for here, there in views:
        first, second = regions[here], regions[there]
        differs[here] |= (first != second) & (first != ignore_index) & (second != ignore_index)
    return thin(differs)
