"""Conversion of stored arrays to decoded predictions, with validation of all values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io import arrays, label_formats, number_formats, vector_formats
from densemtl.io.vector_formats import CAMERA_AXES, AxisConvention
from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth
from densemtl.tasks.direction import Direction

MAX_DEPTH_M = 1000.0
"""Depths above this number of meters are assumed to be millimeters by mistake."""

PredictionMap = NDArray[np.generic]
"""Decoded prediction in the layout of `Sample`."""


@dataclass(frozen=True)
class ReadOptions:
    """Options of the interpretation of prediction files.

    Attributes:
        allow_resize: resize maps of another size than their image, class ids by nearest neighbor
            and other maps bilinearly; otherwise such maps are an error.
        first_class_id: stored id of the first class.
        mat_key: name of the variable in .mat files that contain several arrays.
        normals_axes: direction in which each channel of stored normals increases.
    """

    allow_resize: bool = False
    first_class_id: int = 0
    mat_key: str | None = None
    normals_axes: AxisConvention = CAMERA_AXES


def decode_array(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    """Convert a stored array to a decoded prediction.

    Args:
        array: stored array, channels last or first. The formats of each kind of task are listed in
            `densemtl.evaluation.prediction_files`.
        task: task of the prediction.
        file: file of the array, for error messages.
        options: how the array is interpreted.

    Returns:
        The prediction like that of `Task.decode`, in the layout of `Sample`.

    Raises:
        DataError: if the number of channels is wrong, or values are NaN, infinite or out of range.
    """
    if array.dtype.kind not in "buif" or not array.size:
        raise DataError(f"{file}: needs numbers, found {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        count = f"{np.count_nonzero(~np.isfinite(array))} of {array.size} values"
        raise DataError(f"{file}: {count} are NaN or infinite; each pixel needs a prediction")
    decoders = (decoder for kind, decoder in _DECODERS.items() if isinstance(task, kind))
    return next(decoders, _decode_numbers)(array, task, file, options)


def _require_2d(array: NDArray[Any], file: Path) -> NDArray[Any]:
    plane = arrays.to_channels_last(array)
    if plane.ndim != 2:
        raise DataError(f"{file}: needs one number per pixel, found {array.dtype} {array.shape}")
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
        raise DataError(
            f"{file}: 8-bit depth has no unit; save 16-bit integers in millimeters or floats in "
            "meters"
        )
    meters = plane.astype(np.float32) * np.float32(1 if plane.dtype.kind == "f" else 1e-3)
    if np.abs(meters).max() > MAX_DEPTH_M:
        depth = f"{meters[np.abs(meters) > MAX_DEPTH_M][0]:g} m"
        raise DataError(
            f"{file}: a depth of {depth}; floats must be in meters, integers in millimeters"
        )
    return meters


def _decode_vectors(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    stored = arrays.to_channels_last(array, task.value_channels)
    if stored.ndim != 3 or stored.shape[2] != task.value_channels:
        raise DataError(f"{file}: needs {task.value_channels} channels, found shape {array.shape}")
    vectors = stored.astype(np.float32)
    if stored.dtype in (np.uint8, np.uint16):
        vectors = vectors * np.float32(2 / np.iinfo(stored.dtype).max) - 1
    elif stored.dtype.kind != "f" or np.abs(vectors).max() > 1.01:
        raise DataError(
            f"{file}: components must be floats from -1 to 1 or unsigned 8-bit or 16-bit integers, "
            f"found {stored.dtype} from {stored.min()} to {stored.max()}"
        )
    if task.value_channels != 3:
        return vectors
    # The rotation to camera axes is found by decoding the unit vectors like a label file. The
    # opposite vectors are added, because labels whose mean normal faces away are an error.
    axes = np.stack([np.eye(3, dtype=np.float32), -np.eye(3, dtype=np.float32)])
    rotated: PredictionMap = (
        vectors @ vector_formats.decode_normals(axes, file, options.normals_axes)[0]
    )
    return rotated


def _decode_numbers(
    array: NDArray[Any], task: Task, file: Path, options: ReadOptions
) -> PredictionMap:
    return number_formats.decode_numbers(array, task.value_channels, file)


_DECODERS: dict[type[Task], Callable[[NDArray[Any], Task, Path, ReadOptions], PredictionMap]] = {
    Classification: _decode_classes,
    Binary: _decode_probabilities,
    Depth: _decode_depth,
    Direction: _decode_vectors,
}
"""{kind of task: decoder}; other tasks are decoded by `_decode_numbers`."""
