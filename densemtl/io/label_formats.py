"""Decoders from stored label arrays to labels in the layout of `Sample`, which check all values.

Ignored pixels are 255 in integer maps and NaN in float maps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io.arrays import to_channels_last
from densemtl.types import IGNORE_INDEX

DEFAULT_THRESHOLD = 0.5
"""Share of the maximum of a binary map above which a pixel is positive."""

MAX_RANGES = 8
"""Maximum number of ranges of ids that a message lists."""


def decode_classes(
    array: NDArray[Any], id_to_class: Mapping[int, int], file: Path
) -> NDArray[np.uint8]:
    """Map stored ids to classes.

    Args:
        array: whole numbers of any type, shape (H, W).
        id_to_class: {stored id: class, or 255 for ignored pixels}.
        file: file name for error messages.

    Returns:
        uint8 classes, shape (H, W).

    Raises:
        DataError: if the array is no map of whole numbers, or has an id that is not in
            `id_to_class`.

    Example:
        >>> ids = np.array([[0, 1], [2, 2]])
        >>> decode_classes(ids, {0: 255, 1: 0, 2: 1}, Path("0001.png")).tolist()
        [[255, 0], [1, 1]]
    """
    plane = require_2d(array, "class ids", file)
    if plane.dtype.kind == "f" and not np.array_equal(plane, np.rint(plane)):
        raise DataError(f"{file}: class ids must be whole numbers, but the map has fractions")
    if plane.dtype == np.uint8:
        return _map_uint8_ids(plane, id_to_class, file)
    keys = np.array(sorted(id_to_class), np.int64)
    values = np.array([id_to_class[key] for key in keys.tolist()], np.uint8)
    ids = plane.astype(np.int64)
    if keys[-1] - keys[0] < len(keys):  # without gaps, no search is needed
        positions = np.clip(ids - keys[0], 0, len(keys) - 1)
    else:
        positions = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    unknown = keys[positions] != ids
    if unknown.any():
        raise _make_unknown_id_error(ids[unknown][0], id_to_class, file)
    classes: NDArray[np.uint8] = values[positions]
    return classes


def _map_uint8_ids(
    ids: NDArray[np.uint8], id_to_class: Mapping[int, int], file: Path
) -> NDArray[np.uint8]:
    """Map uint8 ids to classes by tables of all 256 values."""
    table, is_known = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    for key in id_to_class.keys() & range(256):
        table[key], is_known[key] = id_to_class[key], 1
    unknown = cv2.LUT(ids, is_known) == 0
    if unknown.any():
        raise _make_unknown_id_error(ids[unknown][0], id_to_class, file)
    classes: NDArray[np.uint8] = cv2.LUT(ids, table)
    return classes


def _make_unknown_id_error(
    unknown_id: Any, id_to_class: Mapping[int, int], file: Path
) -> DataError:
    ignored = [key for key, value in id_to_class.items() if value == IGNORE_INDEX]
    known = _format_ids(id_to_class) + (f" (ignored: {_format_ids(ignored)})" if ignored else "")
    return DataError(
        f"{file}: class id {unknown_id} is not among the known ids of {known}; check the number"
        " of classes and the ids to ignore"
    )


def _format_ids(ids: Collection[int]) -> str:
    """Format ids as ranges, such as `0..18, 255`."""
    ordered = sorted(ids)
    starts = [key for key in ordered if key - 1 not in ids]
    ends = [key for key in ordered if key + 1 not in ids]
    ranges = [
        str(start) if start == end else f"{start}..{end}"
        for start, end in zip(starts, ends, strict=True)
    ]
    return ", ".join(ranges[:MAX_RANGES]) + (", .." if len(ranges) > MAX_RANGES else "")


def decode_probabilities(array: NDArray[Any], file: Path) -> NDArray[np.float32]:
    """Convert stored probabilities to floats.

    Args:
        array: integers of 8 or 16 bits, whose maximum represents 1, or floats from 0 to 1; shape
            (H, W).
        file: file name for error messages.

    Returns:
        float32 probabilities from 0 to 1, shape (H, W).

    Raises:
        DataError: if there is more than one channel, or a value is out of range.

    Example:
        >>> decode_probabilities(np.array([[0, 255]], np.uint8), Path("a.png")).tolist()
        [[0.0, 1.0]]
    """
    plane = to_channels_last(array)
    if plane.ndim != 2 or not plane.size or plane.dtype.kind not in "buif":
        raise DataError(f"{file}: needs one number per pixel, found {array.dtype} {array.shape}")
    if plane.dtype in (np.uint8, np.uint16):
        return (plane / np.iinfo(plane.dtype).max).astype(np.float32)
    values = plane.astype(np.float32)
    if plane.dtype.kind not in "bf" or not ((values >= 0) & (values <= 1)).all():
        raise DataError(
            f"{file}: probabilities must be floats from 0 to 1, or 8-bit or 16-bit integers; found "
            f"{plane.dtype} from {plane.min()} to {plane.max()}"
        )
    return values


def decode_binary(
    array: NDArray[Any],
    file: Path,
    *,
    max_value: int | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    ignore_values: Sequence[float] = (),
) -> NDArray[np.uint8]:
    """Convert a stored binary or soft map to 0 and 1, by a threshold.

    Args:
        array: numbers from 0 to `max_value`, shape (H, W).
        file: file name for error messages.
        max_value: 1 or 255; by default 255 if any value is above 1.
        threshold: share of `max_value` above which a pixel is 1, at least 0 and below 1.
        ignore_values: stored values of ignored pixels.

    Returns:
        uint8 map of shape (H, W): 1 above the threshold, otherwise 0; 255 where ignored.

    Raises:
        DataError: if there is more than one channel, or a value is outside 0..`max_value`.

    Example:
        >>> stored = np.array([[0, 128, 255]], np.uint8)
        >>> decode_binary(stored, Path("0001.png"), ignore_values=[128]).tolist()
        [[0, 255, 1]]
    """
    plane = require_2d(array, "a binary map", file)
    masked = np.isin(plane, ignore_values) if ignore_values else None
    valid = plane if masked is None else plane[~masked]
    low, high = (valid.min(), valid.max()) if valid.size else (0, 0)
    maximum = max_value or (1 if high <= 1 else 255)
    if not (low >= 0 and high <= maximum):
        raise DataError(f"{file}: a binary map must be in 0..{maximum} here, found {low} to {high}")
    binary = (plane > maximum * threshold).view(np.uint8)
    if masked is not None:
        binary[masked] = IGNORE_INDEX
    return binary


def require_2d(array: NDArray[Any], description: str, file: Path) -> NDArray[Any]:
    """Return a map of one number per pixel, without an axis of a single channel.

    Args:
        array: stored array.
        description: what the map contains, for the error message.
        file: file name for the error message.

    Returns:
        The map, shape (H, W).

    Raises:
        DataError: if the array has another shape, or holds no numbers.
    """
    plane = to_channels_last(array)
    if plane.ndim != 2 or plane.size == 0 or plane.dtype.kind not in "iufb":
        raise DataError(
            f"{file}: {description} must have one number per pixel, found {array.dtype}"
            f" {array.shape}"
        )
    return plane


def make_channels_error(array: NDArray[Any], channels: int, file: Path) -> DataError:
    """Return the error for an array of another shape or type than (H, W, `channels`) numbers."""
    return DataError(f"{file}: needs {channels} channels, found {array.dtype} {array.shape}")
