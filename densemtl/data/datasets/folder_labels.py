"""Description of the label maps of a custom dataset, and the functions that read them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densemtl.config.constraints import ClassNames, NumChannels, PathText
from densemtl.config.sections import Section
from densemtl.data.datasets.folder_options import (
    DEFAULT_ENCODINGS,
    OPTIONS_OF_ENCODINGS,
    RGB,
    ClassValues,
    Encoding,
    FiniteFloat,
    Palette,
    StoredValue,
    Threshold,
    ValidRange,
)
from densemtl.errors import ConfigError, DataError
from densemtl.io import arrays, color_masks, label_formats, number_formats, vector_formats
from densemtl.io.color_masks import Color
from densemtl.io.label_formats import DEFAULT_THRESHOLD
from densemtl.io.vector_formats import CAMERA_AXES, AxisConvention
from densemtl.types import IGNORE_INDEX


class LabelSpec(Section):
    """Description of the label maps of one task.

    Attributes:
        files: folder whose files have the ids of the images as names, or a pattern such as
            depth/{id}.png; see `FolderDataset`.
        kind: kind of the task, such as classification or binary; by default the task's name.
        encoding: encoding of the files; required for custom kinds.
        key: name of the variable in .mat, .npz and .h5 files, or of the channel in .exr files; by
            default the only one.
        class_names: names of the classes, in the order of their ids.
        first_class_id: stored id of the first class; the ids of the others follow.
        class_values: stored id of each class, such as [0, 255], instead of `first_class_id`; or
            {stored id: class}, such as {7: 0, 8: 1, 9: 1}, if several ids are one class.
        palette: RGB color of each class, such as [[128, 64, 128], [0, 0, 142]], if the files are
            color masks; or a text file with one line `R G B name` per class, relative to `root`.
        ignore_colors: RGB colors of ignored pixels of color masks.
        ignore_values: stored values of ignored pixels, in addition to 255 for classes (unless it is
            in `class_values`), 0 for depth, and NaN. Infinite depth and the maximum of 16-bit
            types (65535, 65504 in float maps), which mark the sky or the end of the range, are
            ignored, too. For numbers, .inf and -.inf are possible.
        threshold: share of the maximum (1 or 255) above which a pixel of a binary map is positive.
            Soft maps, such as the mean of the lines of several annotators, may need less than 0.5;
            with 0, all pixels are positive that are not 0.
        scale: factor by which stored values are multiplied; 1 by default, and 0.001 for integer
            depth, which is thus in millimeters. Required for 8-bit depth, depth above 1000 m and
            inverse depth.
        offset: number that is added to the scaled values.
        inverse: whether files contain inverse values: the label is 1 / (scale * stored + offset),
            and ignored where this is not positive. Converts disparity to depth.
        valid_range: smallest and largest valid value of the label, in meters for depth; pixels
            outside are ignored.
        resize: whether label maps of another size, such as those of a depth camera, are resized to
            the image by nearest neighbor; their aspect ratio may differ by 2 %.
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
    class_values: ClassValues | None = None
    palette: Palette | None = None
    ignore_colors: tuple[RGB, ...] = ()
    ignore_values: tuple[StoredValue, ...] = ()
    threshold: Threshold = DEFAULT_THRESHOLD
    scale: float | None = None
    offset: FiniteFloat = 0.0
    inverse: bool = False
    valid_range: ValidRange | None = None
    resize: bool = False
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

    def make_reader(self, task: str, root: Path) -> Callable[[Path], NDArray[np.generic]]:
        """Return the function that reads a label file.

        Args:
            task: name of the task.
            root: folder that the file of a palette is relative to.

        Returns:
            Function from a file to a label in the layout of `Sample`.

        Raises:
            ConfigError: if the encoding is unknown, an option does not suit it, or classes have no
                names or wrong values.
            DataError: if the file of the palette cannot be read.
        """
        encoding, key = self.find_encoding(task), f"data.labels.{task}"
        _check_options(self, encoding, key)
        if self.palette is None:
            return partial(_READERS[encoding], self)
        colors = self.palette
        if isinstance(colors, str):
            colors = color_masks.read_palette(root / colors, self.class_names or ())
        return partial(_read_colors, self, _map_colors(self, colors, key))

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

    def map_ids(self) -> dict[int, int]:
        """Return {stored id: class}, without ignored ids."""
        if isinstance(self.class_values, dict):
            return dict(self.class_values)
        first = self.first_class_id
        values = self.class_values or range(first, first + len(self.class_names or ()))
        return {value: index for index, value in enumerate(values)}

    def ignores_255_by_default(self) -> bool:
        """Return whether 255 is ignored although the description does not mention it."""
        return self.palette is None and IGNORE_INDEX not in (*self.map_ids(), *self.ignore_values)


def _check_options(spec: LabelSpec, encoding: Encoding, key: str) -> None:
    """Raise a `ConfigError` if options do not suit the encoding or each other."""
    for option, encodings in OPTIONS_OF_ENCODINGS.items():
        if option in spec.model_fields_set and encoding not in encodings:
            raise ConfigError(
                f"{key}.{option}: is only for {' and '.join(encodings)}, and these files contain"
                f" {encoding}; remove it"
            )
    if spec.inverse and spec.scale is None:
        raise ConfigError(f"{key}.scale: must be given if inverse is set; use 1 for no scale")
    if encoding != "classes":
        return
    if not spec.class_names:
        raise ConfigError(f"{key}.class_names: must be given, in the order of the ids")
    if not all(isinstance(value, int) for value in spec.ignore_values):
        raise ConfigError(f"{key}.ignore_values: must be whole numbers, like the class ids")
    if spec.palette is None and spec.ignore_colors:
        raise ConfigError(f"{key}.palette: must be given if ignore_colors is set")
    if spec.palette is not None and (spec.class_values is not None or spec.first_class_id):
        raise ConfigError(f"{key}.palette: replaces class_values and first_class_id; remove these")
    if spec.class_values is not None:
        _check_class_values(spec, f"{key}.class_values")


def _check_class_values(spec: LabelSpec, key: str) -> None:
    values, num_classes = spec.class_values, len(spec.class_names or ())
    if isinstance(values, dict):
        if missing := sorted(set(range(num_classes)) ^ set(values.values())):
            raise ConfigError(
                f"{key}: the classes must be 0..{num_classes - 1}, each at least once: class"
                f" {missing[0]} is missing or has no name; ignored ids belong in ignore_values"
            )
    elif len(values or ()) != num_classes:
        raise ConfigError(
            f"{key}: {len(values or ())} values for {num_classes} class_names; add one each"
        )
    if len(set(values or ())) < len(values or ()) or set(values or ()) & set(spec.ignore_values):
        raise ConfigError(f"{key}: a value is listed twice, or is in ignore_values; remove it")
    if spec.first_class_id:
        raise ConfigError(f"{key}: replaces first_class_id; remove first_class_id")


def _read_classes(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    ignored = dict.fromkeys(map(int, spec.ignore_values), IGNORE_INDEX)
    ids = {IGNORE_INDEX: IGNORE_INDEX, **spec.map_ids(), **ignored}
    return label_formats.decode_classes(arrays.read_array(file, spec.key), ids, file)


def _map_colors(spec: LabelSpec, colors: tuple[Color, ...], key: str) -> dict[Color, int]:
    """Return {color: class, or 255 if ignored}."""
    num_classes = len(spec.class_names or ())
    if len(colors) != num_classes:
        raise ConfigError(
            f"{key}.palette: {len(colors)} colors for {num_classes} class_names; add one each"
        )
    known = (*colors, *spec.ignore_colors)
    if duplicates := [color for color in known if known.count(color) > 1]:
        raise ConfigError(
            f"{key}.palette: the color {list(duplicates[0])} is listed twice, in palette and"
            " ignore_colors together; remove one"
        )
    classes = {color: index for index, color in enumerate(colors)}
    return {**classes, **dict.fromkeys(spec.ignore_colors, IGNORE_INDEX)}


def _read_colors(
    spec: LabelSpec, color_to_class: dict[Color, int], file: Path
) -> NDArray[np.generic]:
    return color_masks.decode_colors(arrays.read_image(file, spec.key), color_to_class, file)


def _read_binary(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    return label_formats.decode_binary(
        arrays.read_array(file, spec.key),
        file,
        threshold=spec.threshold,
        ignore_values=spec.ignore_values,
    )


def _read_regression(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    stored = arrays.read_array(file, spec.key)
    return _decode_numbers(spec, stored, spec.channels or 1, file, scale=spec.scale or 1.0)


def _decode_numbers(
    spec: LabelSpec,
    stored: NDArray[Any],
    channels: int,
    file: Path,
    *,
    scale: float,
    unknown: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    return number_formats.decode_numbers(
        stored,
        channels,
        file,
        scale=scale,
        offset=spec.offset,
        inverse=spec.inverse,
        valid_range=spec.valid_range,
        ignore_values=(*unknown, *spec.ignore_values),
    )


def _read_depth(spec: LabelSpec, file: Path) -> NDArray[np.generic]:
    stored = arrays.read_array(file, spec.key)
    if spec.scale is None and stored.dtype.itemsize == 1:
        raise DataError(
            f"{file}: 8-bit depth has no unit; save 16-bit millimeters or float meters, or set"
            " the label's scale to the meters per step"
        )
    scale = spec.scale or (1e-3 if stored.dtype.kind in "iu" else 1.0)
    measured = number_formats.mask_saturated_depth(stored)
    depth = _decode_numbers(spec, measured, 1, file, scale=scale, unknown=(0,))
    depth = number_formats.decode_depth(depth, file, max_depth=np.inf)
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
        return vector_formats.decode_normals(stored, file, spec.axes)
    return vector_formats.decode_unit_vectors(stored, channels, file)


_READERS: dict[Encoding, Callable[[LabelSpec, Path], NDArray[np.generic]]] = {
    "classes": _read_classes,
    "binary": _read_binary,
    "regression": _read_regression,
    "depth": _read_depth,
    "unit_vectors": _read_unit_vectors,
}
