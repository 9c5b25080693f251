"""How the label maps of one's own data are described, and read as described."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densemtl.config.constraints import ClassNames, NumChannels
from densemtl.config.sections import Section
from densemtl.errors import ConfigError
from densemtl.io import arrays, label_formats
from densemtl.io.label_formats import CAMERA_AXES, AxisConvention
from densemtl.types import IGNORE_INDEX

Encoding = Literal["classes", "binary", "regression", "depth", "unit_vectors"]

DEFAULT_ENCODINGS: dict[str, Encoding] = {
    "classification": "classes",
    "semseg": "classes",
    "human_parts": "classes",
    "binary": "binary",
    "edge": "binary",
    "saliency": "binary",
    "regression": "regression",
    "depth": "depth",
    "direction": "unit_vectors",
    "normals": "unit_vectors",
}
"""How the labels of each kind of task are stored."""


class LabelSpec(Section):
    """The label maps of one task.

    Attributes:
        files: a folder (a map has its image's name), or a pattern such as depth/{id}.png.
        kind: the task's kind, such as classification or binary; by default its name.
        encoding: how to read the files, for a kind of one's own.
        key: the variable of .mat files.
        class_names: of classes, in the order of their ids.
        first_class_id: the stored id of the first class; the others follow it.
        ignore_values: stored numbers that mark pixels without a label (besides 255 of classes, 0 of
            depth, and NaN).
        scale: what stored numbers are multiplied by; for integer depth 0.001 by default.
        channels: of regression and unit vectors.
        axes: the direction in which each channel of stored normals grows.
        options: further defaults of the task, such as {loss: berhu}.
    """

    files: str
    kind: str | None = None
    encoding: Encoding | None = None
    key: str | None = None
    class_names: ClassNames | None = None
    first_class_id: int = 0
    ignore_values: tuple[int, ...] = ()
    scale: float | None = None
    channels: NumChannels | None = None
    axes: AxisConvention = CAMERA_AXES
    options: dict[str, Any] = Field(default_factory=dict)

    def task_defaults(self) -> dict[str, Any]:
        """The defaults of a task that learns these."""
        defaults = {"kind": self.kind, "class_names": self.class_names, "channels": self.channels}
        return {
            **self.options,
            **{key: value for key, value in defaults.items() if value is not None},
        }

    def make_reader(self, task: str) -> Callable[[Path], NDArray[np.generic]]:
        """The function from a file to a target.

        Raises:
            ConfigError: how these are stored cannot be told, or classes have no names.
        """
        kind = self.kind or task
        stored = self.encoding or DEFAULT_ENCODINGS.get(kind)
        if stored is None:
            ways = ", ".join(sorted(set(DEFAULT_ENCODINGS.values())))
            raise ConfigError(
                f"data.labels.{task}.encoding: for the kind {kind!r} give one of {ways}"
            )
        if stored == "classes" and not self.class_names:
            raise ConfigError(f"data.labels.{task}.class_names: must be given, in order of the ids")
        return partial(_READERS[stored], self)


def _read_classes(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    classes = {spec.first_class_id + index: index for index in range(len(spec.class_names or ()))}
    ids = {IGNORE_INDEX: IGNORE_INDEX, **classes, **dict.fromkeys(spec.ignore_values, IGNORE_INDEX)}
    return label_formats.decode_classes(arrays.read_array(file, spec.key), ids, file)


def _read_binary(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    return label_formats.decode_binary(
        arrays.read_array(file, spec.key), file, ignore_values=spec.ignore_values
    )


def _read_regression(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    stored = arrays.read_array(file, spec.key)
    scale = spec.scale or 1.0
    return label_formats.decode_numbers(
        stored, spec.channels or 1, file, scale=scale, ignore_values=spec.ignore_values
    )


def _read_depth(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    stored = arrays.read_array(file, spec.key)
    scale = spec.scale or (1e-3 if stored.dtype.kind in "iu" else 1.0)
    metres = label_formats.decode_numbers(
        stored, 1, file, scale=scale, ignore_values=spec.ignore_values
    )
    return label_formats.decode_depth(metres, file, max_depth=np.inf)


def _read_unit_vectors(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    stored, channels = arrays.read_array(file, spec.key), spec.channels or 3
    if channels == 3:
        return label_formats.decode_normals(stored, file, spec.axes)
    return label_formats.decode_unit_vectors(stored, channels, file)


_READERS: dict[Encoding, Callable[[LabelSpec, Path], NDArray[np.generic]]] = {
    "classes": _read_classes,
    "binary": _read_binary,
    "regression": _read_regression,
    "depth": _read_depth,
    "unit_vectors": _read_unit_vectors,
}
