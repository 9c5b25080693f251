"""Labels that follow from a view: the edges of objects and the main object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.classes import MOVABLE_CLASSES, get_class_id
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene, find_id_borders
from densemtl.types import IGNORE_INDEX

_MIN_AREA_FRACTION = 0.01


def find_object_edges(scene: RenderedScene) -> NDArray[np.uint8]:
    """HxW, 1 where one object, or the walls, the floor or the ceiling, ends at another."""
    return find_id_borders(scene.instance).astype(np.uint8)


def find_salient_object(scene: RenderedScene) -> NDArray[np.uint8]:
    """HxW, 1 on the main object, 0 elsewhere; void throughout if nothing movable is in view.

    The main object has most of its pixels near the middle, where photographers put it; a person
    outdoes furniture of up to three times the weight. It covers at least 1 % of the picture.
    """
    movable = np.isin(scene.semseg, [get_class_id(name) for name in MOVABLE_CLASSES])
    rows, columns = (np.linspace(-1, 1, side) for side in scene.semseg.shape)
    weight = np.exp(-1.5 * (rows[:, None] ** 2 + columns**2)) * movable
    weight *= 1 + 2 * (scene.semseg == get_class_id("person"))
    score = np.bincount(scene.instance.ravel(), weight.ravel())
    chosen = scene.instance == score.argmax()
    if not movable.any() or chosen.mean() < _MIN_AREA_FRACTION:
        return np.full(chosen.shape, IGNORE_INDEX, np.uint8)
    return chosen.astype(np.uint8)
