"""The names behind the ids of the semantic and the human-part labels."""

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
"""Classes whose objects may be a picture's main object."""


def get_class_id(name: str) -> int:
    """Id of a semantic class."""
    return CLASSES.index(name)


def get_part_id(name: str) -> int:
    """Id of a human part."""
    return PARTS.index(name)
