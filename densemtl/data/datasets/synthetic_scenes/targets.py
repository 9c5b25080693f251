"""Labels that are derived from a rendered scene: object edges and the salient object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.classes import MOVABLE_CLASSES, get_class_id
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene, find_id_borders
from densemtl.types import IGNORE_INDEX

_MIN_AREA_FRACTION = 0.01


def find_object_edges(scene: RenderedScene) -> NDArray[np.uint8]:
    """Find the boundaries between objects; walls, floor and ceiling count as objects.

    Args:
        scene: rendered scene.

    Returns:
        Mask, shape (H, W), uint8: 1 on edges, 0 elsewhere.
    """
    return find_id_borders(scene.instance).astype(np.uint8)


def find_salient_object(scene: RenderedScene) -> NDArray[np.uint8]:
    """Find the salient object: the movable object with the largest weight of its pixels.

    The weight of a pixel decreases with its distance from the image center, and is three times as
    large on people. The object must cover at least 1 % of the image.

    Args:
        scene: rendered scene.

    Returns:
        Mask, shape (H, W), uint8: 1 on the object, 0 elsewhere; the ignore index at all pixels if
        there is no such object.
    """
    movable = np.isin(scene.semseg, [get_class_id(name) for name in MOVABLE_CLASSES])
    rows, columns = (np.linspace(-1, 1, side) for side in scene.semseg.shape)
    weight = np.exp(-1.5 * (rows[:, None] ** 2 + columns**2)) * movable
    weight *= 1 + 2 * (scene.semseg == get_class_id("person"))
    score = np.bincount(scene.instance.ravel(), weight.ravel())
    chosen = scene.instance == score.argmax()
    if not movable.any() or chosen.mean() < _MIN_AREA_FRACTION:
        return np.full(chosen.shape, IGNORE_INDEX, np.uint8)
    mask: NDArray[np.uint8] = chosen.astype(np.uint8)
    return mask
