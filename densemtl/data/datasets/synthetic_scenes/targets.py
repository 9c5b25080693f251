"""Labels that follow from a view: the edges of objects and the main object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.classes import MOVABLE, class_id
from densemtl.data.datasets.synthetic_scenes.render import View, borders
from densemtl.types import VOID

_SMALLEST_SHARE = 0.01


def object_edges(view: View) -> NDArray[np.uint8]:
    """HxW, 1 where one object, or the walls, the floor or the ceiling, ends at another."""
    return borders(view.instance).astype(np.uint8)


def main_object(view: View) -> NDArray[np.uint8]:
    """HxW, 1 on the main object, 0 elsewhere; void throughout if nothing movable is in view.

    The main object has most of its pixels near the middle, where photographers put it; a person
    outdoes furniture of up to three times the weight. It covers at least 1 % of the picture.
    """
    movable = np.isin(view.semseg, [class_id(name) for name in MOVABLE])
    rows, columns = (np.linspace(-1, 1, side) for side in view.semseg.shape)
    weight = np.exp(-1.5 * (rows[:, None] ** 2 + columns**2)) * movable
    weight *= 1 + 2 * (view.semseg == class_id("person"))
    score = np.bincount(view.instance.ravel(), weight.ravel())
    chosen = view.instance == score.argmax()
    if not movable.any() or chosen.mean() < _SMALLEST_SHARE:
        return np.full(chosen.shape, VOID, np.uint8)
    return chosen.astype(np.uint8)
