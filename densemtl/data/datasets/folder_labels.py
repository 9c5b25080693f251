"""Description of the label maps of a custom dataset, and the functions that read them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densemtl.config.constraints import ClassNames, NumChannels, PathText
from densemtl.config.sections import Section
from densemtl.errors import ConfigError, DataError
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
"""Default encoding of the label files of each kind of task."""


class LabelSpec(Section):
    """Description of the label maps of one task.

    Attributes:
        files: folder whose files have the ids of the images as names, or a pattern such as
            depth/{id}.png; see `FolderDataset`.
        kind: kind of the task, such as classification or binary; by default the task's name.
        encoding: encoding of the files; required for custom kinds.
        key: name of the variable in .mat files; by default the only one.
        class_names: names of the classes, in the order of their ids.
        first_class_id: stored id of the first class; the ids of the others follow.
        class_values: stored value of each class, such as [0, 255], instead of `first_class_id`.
        ignore_values: stored values of ignored pixels, in addition to 255 for classes (unless it is
            in `class_values`), 0 for depth, and NaN. Infinite depth and the maximum of 16-bit
            types (65535, 65504 in float maps), which mark the sky or the end of the range, are
            ignored, too.
        scale: factor by which stored values are multiplied; 1 by default, and 0.001 for integer
            depth, which is thus in millimeters. Required for 8-bit depth and depth above 1000 m.
        allow_missing: whether training images may have no label of this task.
        channels: number of channels of regression targets (default 1) and unit vectors (default 3).
        axes: direction in which each channel of stored normals increases.
        options: further default options of the task, such as {loss: berhu}.

    Example:
        >>> spec = LabelSpec(files="masks", kind="classification", class_names=["road", "car"])
        >>> spec.task_defaults()
        {'kind': 'classification', 'class_names': ['road', 'car']}
    """

    files: PathText
    kind: str | None = None
    encoding: Encoding | None = None
    key: str | None = None
    class_names: ClassNames | None = None
    first_class_id: int = 0
    class_values: tuple[int, ...] | None = None
    ignore_values: tuple[int, ...] = ()
    scale: float | None = None
    allow_missing: bool = False
    channels: NumChannels | None = None
    axes: AxisConvention = CAMERA_AXES
    options: dict[str, Any] = Field(default_factory=dict)

    def task_defaults(self) -> dict[str, Any]:
        """Return the default options of a task with these labels.

        Returns:
            {option: default value}: `options`, and `kind`, `class_names` and `channels` if given.
        """
        defaults = {"kind": self.kind, "class_names": self.class_names, "channels": self.channels}
        return {
            **self.options,
            **{key: value for key, value in defaults.items() if value is not None},
        }

    def make_reader(self, task: str) -> Callable[[Path], NDArray[np.generic]]:
        """Return the function that reads a label file.

        Args:
            task: name of the task.

        Returns:
            Function from a file to a label in the layout of `Sample`.

        Raises:
            ConfigError: if the encoding is unknown, or if classes have no names or wrong values.
        """
        encoding = self.find_encoding(task)
        if encoding == "classes" and not self.class_names:
            raise ConfigError(
                f"data.labels.{task}.class_names: must be given, in the order of the ids"
            )
        if self.class_values is not None:
            self._check_class_values(self.class_values, task)
        return partial(_READERS[encoding], self)

    def find_encoding(self, task: str) -> Encoding:
        """Return the encoding of the files.

        Args:
            task: name of the task.

        Returns:
            The given encoding, or that of the kind of task.

        Raises:
            ConfigError: if the encoding of a custom kind is not given.
        """
        kind = self.kind or task
        encoding = self.encoding or DEFAULT_ENCODINGS.get(kind)
        if encoding is None:
            choices = ", ".join(sorted(set(DEFAULT_ENCODINGS.values())))
            raise ConfigError(
                f"data.labels.{task}.encoding: must be given for the kind {kind!r}; choose from"
                f" {choices}"
            )
        return encoding

    def list_class_values(self) -> tuple[int, ...]:
        """Return the stored value of each class."""
        if self.class_values is not None:
            return self.class_values
        return tuple(self.first_class_id + index for index in range(len(self.class_names or ())))

    def ignores_255_by_default(self) -> bool:
        """Return whether 255 is ignored although the description does not mention it."""
        return IGNORE_INDEX not in (*self.list_class_values(), *self.ignore_values)

    def _check_class_values(self, values: tuple[int, ...], task: str) -> None:
        key, num_classes = f"data.labels.{task}.class_values", len(self.class_names or ())
        if len(values) != num_classes:
            raise ConfigError(
                f"{key}: {len(values)} values for {num_classes} class_names; add one each"
            )
        if len(set(values)) < len(values) or set(values) & set(self.ignore_values):
            raise ConfigError(f"{key}: a value is listed twice, or is in ignore_values; remove it")
        if self.first_class_id:
            raise ConfigError(f"{key}: replaces first_class_id; remove first_class_id")


def _read_classes(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    classes = {value: index for index, value in enumerate(spec.list_class_values())}
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
    if spec.scale is None and stored.dtype.itemsize == 1:
        raise DataError(
            f"{file}: 8-bit depth has no unit; save 16-bit millimeters or float meters, or set"
            " the label's scale to the meters per step"
        )
    scale = spec.scale or (1e-3 if stored.dtype.kind in "iu" else 1.0)
    measured = label_formats.mask_saturated_depth(stored)
    depth = label_formats.decode_numbers(
        measured, 1, file, scale=scale, ignore_values=spec.ignore_values
    )
    depth = label_formats.decode_depth(depth, file, max_depth=np.inf)
    largest = np.fmax.reduce(depth, axis=None)  # NaN, without a warning, if nothing is valid
    if spec.scale is None and largest > MAX_DEPTH:
        raise DataError(
            f"{file}: depth of {largest:g} m; floats must be meters and integers"
            " millimeters, otherwise set the label's scale to the meters per stored unit;"
            " values of pixels without depth belong in ignore_values"
        )
    return depth


MAX_DEPTH = 1000.0
"""Maximum depth in meters if no unit is given; larger values have another unit or mark the sky."""


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
