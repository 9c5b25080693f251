"""Predictions from arrays as others store them, with every value checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io import arrays, label_formats
from densemtl.io.label_formats import CAMERA_AXES, AxisConvention
from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth
from densemtl.tasks.direction import Direction

MAX_DEPTH_M = 1000.0
"""Metres beyond which a depth must be millimetres that were taken for metres."""

PredictionMap = NDArray[np.generic]
"""A decoded prediction in a `Sample`'s layout."""


@dataclass(frozen=True)
class ReadOptions:
    """How files are understood where they do not say so themselves.

    Attributes:
        allow_resize: accept maps of another size than their image: class ids take the nearest
            pixel, all else is interpolated bilinearly.
        first_class_id: the stored id of the first class.
        mat_key: the variable of .mat files that hold several arrays.
        normals_axes: the direction in which each channel of stored normals grows.
    """

    allow_resize: bool = False
    first_class_id: int = 0
    mat_key: str | None = None
    normals_axes: AxisConvention = CAMERA_AXES


def decode_array(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    """Stored numbers -> what `Task.decode` gives, in a `Sample`'s layout and of any size.

    Args:
        array: channels last or first; `predictions.files` tells how each kind of task is stored.
        task: whose prediction it is.
        file: named in errors.
        options: what the file does not say.

    Raises:
        DataError: another number of channels, NaN, infinite or out of range.
    """
    if array.dtype.kind not in "buif" or not array.size:
        raise DataError(f"{file}: needs numbers, this is {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        count = f"{np.count_nonzero(~np.isfinite(array))} of {array.size} values"
        raise DataError(f"{file}: {count} are NaN or infinite; each pixel needs a prediction")
    readers = (reader for kind, reader in _DECODERS.items() if isinstance(task, kind))
    return next(readers, _decode_numbers)(array, task, file, options)


def _require_2d(array: NDArray[Any], file: Path) -> NDArray[Any]:
    plane = arrays.to_channels_last(array)
    if plane.ndim != 2:
        raise DataError(f"{file}: needs one number a pixel, this is {array.dtype} {array.shape}")
    return plane


def _decode_classes(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    id_to_class = {options.first_class_id + index: index for index in range(task.channels)}
    return label_formats.decode_classes(_require_2d(array, file), id_to_class, file)


def _decode_probabilities(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    return label_formats.decode_probabilities(array, file)


def _decode_depth(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    plane = _require_2d(array, file)
    if plane.dtype.kind == "b" or plane.dtype == np.uint8:
        raise DataError(f"{file}: depth of 8 bits has no unit; save 16-bit millimetres or metres")
    metres = plane.astype(np.float32) * np.float32(1 if plane.dtype.kind == "f" else 1e-3)
    if np.abs(metres).max() > MAX_DEPTH_M:
        far = f"{metres[np.abs(metres) > MAX_DEPTH_M][0]:g} m"
        raise DataError(f"{file}: a depth of {far}; floats must be metres, integers millimetres")
    return metres


def _decode_vectors(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    stored = arrays.to_channels_last(array, task.channels)
    if stored.ndim != 3 or stored.shape[2] != task.channels:
        raise DataError(f"{file}: needs {task.channels} channels, this array is {array.shape}")
    vectors = stored.astype(np.float32)
    if stored.dtype in (np.uint8, np.uint16):
        vectors = vectors * np.float32(2 / np.iinfo(stored.dtype).max) - 1
    elif stored.dtype.kind != "f" or np.abs(vectors).max() > 1.01:
        actual = f"this is {stored.dtype} from {stored.min()} to {stored.max()}"
        raise DataError(f"{file}: components are floats from -1 to 1, or of 8 or 16 bits; {actual}")
    if task.channels != 3:
        return vectors
    # What the reader of labels makes of each axis; of opposite ones, since it refuses a scene whose
    # normals face away in the mean.
    axes = np.stack([np.eye(3, dtype=np.float32), -np.eye(3, dtype=np.float32)])
    return vectors @ label_formats.decode_normals(axes, file, options.normals_axes)[0]


def _decode_numbers(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    return label_formats.decode_numbers(array, task.channels, file)


_DECODERS: dict[type[Task], Callable[[NDArray[Any], Task, Path, ReadOptions], PredictionMap]] = {
    Classification: _decode_classes,
    Binary: _decode_probabilities,
    Depth: _decode_depth,
    Direction: _decode_vectors,
}
"""For each kind of task; others are numbers."""
