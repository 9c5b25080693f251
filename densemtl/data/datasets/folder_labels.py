"""How the label maps of one's own data are described, and read as described."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densemtl.io import arrays
from densemtl.io import label_formats
from densemtl.io.label_formats import CAMERA_AXES, Axes
from densemtl.errors import ConfigError
from densemtl.config.constraints import ClassNames, Width
from densemtl.config.sections import Section
from densemtl.types import VOID

Storage = Literal["classes", "binary", "regression", "depth", "unit_vectors"]

STORAGE: dict[str, Storage] = {
    "classes": "classes",
    "semseg": "classes",
    "human_parts": "classes",
    "binary": "binary",
    "edge": "binary",
    "saliency": "binary",
    "regression": "regression",
    "depth": "depth",
    "unit_vectors": "unit_vectors",
    "normals": "unit_vectors",
}
"""How the labels of each kind of task are stored."""


class LabelMaps(Section):
    """The label maps of one task.

    Attributes:
        files: a folder (a map has its image's name), or a pattern such as depth/{id}.png.
        kind: the task's kind, such as classes or binary; by default its name.
        stored: how to read the files, for a kind of one's own.
        key: the variable of .mat files.
        class_names: of classes, in the order of their ids.
        first: the stored id of the first class; the others follow it.
        void: stored numbers that mark pixels without a label (besides 255 of classes, 0 of depth,
            and NaN).
        scale: what stored numbers are multiplied by; for integer depth 0.001 by default.
        channels: of regression and unit vectors.
        axes: the direction in which each channel of stored normals grows.
        options: further defaults of the task, such as {loss: berhu}.
    """

    files: str
    kind: str | None = None
    stored: Storage | None = None
    key: str | None = None
    class_names: ClassNames | None = None
    first: int = 0
    void: tuple[int, ...] = ()
    scale: float | None = None
    channels: Width | None = None
    axes: Axes = CAMERA_AXES
    options: dict[str, Any] = Field(default_factory=dict)

    def task_options(self) -> dict[str, Any]:
        """The defaults of a task that learns these."""
        own = {"kind": self.kind, "class_names": self.class_names, "channels": self.channels}
        return {**self.options, **{key: value for key, value in own.items() if value is not None}}

    def reader(self, task: str) -> Callable[[Path], NDArray[np.generic]]:
        """The function from a file to a target.

        Raises:
            ConfigError: how these are stored cannot be told, or classes have no names.
        """
        kind = self.kind or task
        stored = self.stored or STORAGE.get(kind)
        if stored is None:
            ways = ", ".join(sorted(set(STORAGE.values())))
            raise ConfigError(
                f"data.labels.{task}.stored: for the kind {kind!r} give one of {ways}"
            )
        if stored == "classes" and not self.class_names:
            raise ConfigError(f"data.labels.{task}.class_names: must be given, in order of the ids")
        return partial(_READERS[stored], self)


def _read_classes(maps: LabelMaps, file: Path) -> NDArray[np.generic]:
    known = {maps.first + index: index for index in range(len(maps.class_names or ()))}
    ids = {VOID: VOID, **known, **dict.fromkeys(maps.void, VOID)}
    return label_formats.to_classes(arrays.read_array(file, maps.key), ids, file)


def _read_binary(maps: LabelMaps, file: Path) -> NDArray[np.generic]:
    return label_formats.to_binary(arrays.read_array(file, maps.key), file, void=maps.void)


def _read_numbers(maps: LabelMaps, file: Path) -> NDArray[np.generic]:
    stored = arrays.read_array(file, maps.key)
    scale = maps.scale or 1.0
    return label_formats.to_numbers(stored, maps.channels or 1, file, scale=scale, void=maps.void)


def _read_depth(maps: LabelMaps, file: Path) -> NDArray[np.generic]:
    stored = arrays.read_array(file, maps.key)
    scale = maps.scale or (1e-3 if stored.dtype.kind in "iu" else 1.0)
    metres = label_formats.to_numbers(stored, 1, file, scale=scale, void=maps.void)
    return label_formats.to_depth(metres, file, limit=np.inf)


def _read_vectors(maps: LabelMaps, file: Path) -> NDArray[np.generic]:
    stored, channels = arrays.read_array(file, maps.key), maps.channels or 3
    if channels == 3:
        return label_formats.to_normals(stored, file, maps.axes)
    return label_formats.to_unit_vectors(stored, channels, file)


_READERS: dict[Storage, Callable[[LabelMaps, Path], NDArray[np.generic]]] = {
    "classes": _read_classes,
    "binary": _read_binary,
    "regression": _read_numbers,
    "depth": _read_depth,
    "unit_vectors": _read_vectors,
}
