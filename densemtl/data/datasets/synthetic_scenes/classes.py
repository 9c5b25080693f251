"""Names and ids of the semantic classes and human parts."""

from __future__ import annotations

CLASSES = (
    "wall",
    "floor",
    "ceiling",
    "door",
    "window",
    "picture",
    "table",
    "chair",
    "sofa",
    "bed",
    "cabinet",
    "lamp",
    "rug",
    "person",
    "plant",
)
"""Semantic classes; the id is the index."""

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
"""Human parts; the id is the index. A hand counts as lower arm, a foot as lower leg."""

MOVABLE_CLASSES = ("table", "chair", "sofa", "bed", "cabinet", "lamp", "person", "plant")
"""Classes of the objects that may be salient."""


def get_class_id(name: str) -> int:
    """Return the id of a semantic class.

    Args:
        name: name of the class in `CLASSES`.

    Returns:
        Its index.

    Raises:
        ValueError: if there is no such class.
    """
    return CLASSES.index(name)


def get_part_id(name: str) -> int:
    """Return the id of a human part.

    Args:
        name: name of the part in `PARTS`.

    Returns:
        Its index.

    Raises:
        ValueError: if there is no such part.
    """
    return PARTS.index(name)
