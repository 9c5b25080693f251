"""Boundaries between the regions of a segmented image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.ops.thinning import thin


def find_region_boundaries(
    regions: NDArray[np.integer], ignore_index: int | None = None
) -> NDArray[np.bool_]:
    """Return the thinned boundaries between regions.

    A pixel is on a boundary if it differs from its east, south or south-east neighbor, as in the
    Berkeley benchmark (Martin et al., "Learning to detect natural image boundaries using local
    brightness, color, and texture cues", PAMI 2004).

    Args:
        regions: region ids of any integer type, shape (H, W). A binary map of lines counts as
            regions too (NYUD under the protocol `modern`).
        ignore_index: an id that forms no boundary with others.

    Returns:
        The binary boundary map, shape (H, W).
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
