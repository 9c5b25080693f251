"""From arrays as archives store them to a `Sample`'s targets, with every value checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io.arrays import to_channels_last
from densemtl.types import IGNORE_INDEX

AxisDirection = Literal["right", "left", "down", "up", "forward", "backward"]

AxisConvention = tuple[AxisDirection, AxisDirection, AxisDirection]
"""The direction in which each of three channels grows."""

CAMERA_AXES: AxisConvention = ("right", "down", "forward")

_AXIS_INDEX_AND_SIGN: dict[AxisDirection, tuple[int, int]] = {
    "right": (0, 1),
    "left": (0, -1),
    "down": (1, 1),
    "up": (1, -1),
    "forward": (2, 1),
    "backward": (2, -1),
}


_UNKNOWN_ID = -1


def decode_classes(
    array: NDArray[Any], id_to_class: Mapping[int, int], file: Path
) -> NDArray[np.uint8]:
    """HxW ids of an archive -> HxW uint8 classes.

    Args:
        array: whole numbers of any type.
        id_to_class: {id in the archive: class, or 255 for void}.
        file: named in errors.

    Raises:
        DataError: not a map of whole numbers, or an id that `id_to_class` lacks.
    """
    plane = _require_2d(array, "class ids", file)
    if plane.dtype.kind == "f" and not np.array_equal(plane, np.rint(plane)):
        raise DataError(f"{file}: class ids must be whole numbers, these are not")
    if plane.dtype == np.uint8:
        return _map_uint8_ids(plane, id_to_class, file)
    low, high = min(id_to_class), max(id_to_class)
    table = np.full(high - low + 1, _UNKNOWN_ID, np.int16)
    table[[key - low for key in id_to_class]] = list(id_to_class.values())
    ids = plane.astype(np.int64)
    inside = (ids >= low) & (ids <= high)
    classes = np.where(inside, table[np.where(inside, ids - low, 0)], _UNKNOWN_ID)
    if (classes == _UNKNOWN_ID).any():
        raise _make_unknown_id_error(ids[classes == _UNKNOWN_ID][0], id_to_class, file)
    return classes.astype(np.uint8)


def _map_uint8_ids(
    ids: NDArray[np.uint8], id_to_class: Mapping[int, int], file: Path
) -> NDArray[np.uint8]:
    """The same of ids of 8 bits, by tables of all that there can be."""
    table, is_known = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    for key in id_to_class.keys() & range(256):
        table[key], is_known[key] = id_to_class[key], 1
    unknown = cv2.LUT(ids, is_known) == 0
    if unknown.any():
        raise _make_unknown_id_error(ids[unknown][0], id_to_class, file)
    return cv2.LUT(ids, table)


def _make_unknown_id_error(
    unknown_id: Any, id_to_class: Mapping[int, int], file: Path
) -> DataError:
    id_range = f"{min(id_to_class)}..{max(id_to_class)}"
    return DataError(f"{file}: class id {unknown_id} is not among the known ids of {id_range}")


def decode_depth(
    array: NDArray[Any], file: Path, *, meters_per_step: float = 1e-3, max_depth: float = 100.0
) -> NDArray[np.float32]:
    """HxW depth -> float32 metres with NaN where unknown (0 or NaN).

    Args:
        array: float metres, or integers counted in `meters_per_step`.
        file: named in errors.
        meters_per_step: metres one step of an integer map stands for.
        max_depth: metres beyond which a value must be a mistake.

    Raises:
        DataError: 8 bits, no valid pixel, or values that are negative, infinite or too large.
    """
    plane = _require_2d(array, "depth", file)
    if plane.dtype == np.uint8:
        raise DataError(f"{file}: depth of 8 bits has no unit; save 16-bit millimetres or metres")
    metres = plane.astype(np.float32)
    if plane.dtype.kind in "iu":
        metres *= np.float32(meters_per_step)
    if np.isinf(metres).any() or (metres < 0).any():
        raise DataError(f"{file}: infinite or negative depth; unknown depth must be 0 or NaN")
    metres[metres == 0] = np.nan
    if np.isnan(metres).all():
        raise DataError(f"{file}: not one pixel has a depth, all are 0 or NaN; remove the file")
    if np.nanmax(metres) > max_depth:
        far = f"{np.nanmax(metres):g} m is beyond {max_depth:g} m"
        raise DataError(f"{file}: depth of {far}; floats must be metres, integers millimetres")
    return metres


def decode_numbers(
    array: NDArray[Any],
    channels: int,
    file: Path,
    *,
    scale: float = 1.0,
    ignore_values: Sequence[int] = (),
) -> NDArray[np.float32]:
    """Stored numbers -> HxW, or HxWxC for several channels, float32 with NaN for void.

    Args:
        array: channels last or first; NaN is void too.
        channels: C.
        file: named in errors.
        scale: what the numbers are multiplied by.
        ignore_values: stored numbers that mark void, in any channel.

    Raises:
        DataError: another number of channels, or infinite values.
    """
    stored = to_channels_last(array, channels)
    inside = (channels,) if channels > 1 else ()
    wrong = stored.ndim != 2 + len(inside) or stored.shape[2:] != inside
    if wrong or stored.dtype.kind not in "iufb":
        raise DataError(f"{file}: needs {channels} channels, found {array.dtype} {array.shape}")
    values = stored.astype(np.float32) * np.float32(scale)
    if np.isinf(values).any():
        raise DataError(f"{file}: infinite values; pixels without a label must be NaN")
    values[np.isin(stored, ignore_values)] = np.nan
    return values


def decode_normals(
    array: NDArray[Any],
    file: Path,
    axes: AxisConvention = CAMERA_AXES,
) -> NDArray[np.float32]:
    """Stored normals -> HxWx3 float32 of length 1 in camera axes, NaN where invalid.

    Args:
        array: three channels, stored as `decode_unit_vectors` says.
        file: named in errors.
        axes: the direction in which each stored channel grows.

    Raises:
        DataError: not three channels, values beyond -1..1, surfaces that face away, or axes of
            which two are one.
    """
    if len({_AXIS_INDEX_AND_SIGN[axis][0] for axis in axes}) < len(axes):
        raise DataError(f"data.normals_axes: {', '.join(axes)} leave one axis out; name each once")
    vectors = decode_unit_vectors(array, 3, file)
    normals = vectors if axes == CAMERA_AXES else cv2.transform(vectors, _make_axis_rotation(axes))
    depthwards = normals[..., 2]
    if np.nansum(depthwards) > _MAX_MEAN_Z * np.isfinite(depthwards).sum():
        raise DataError(f"{file}: these surfaces face away from the camera; set data.normals_axes")
    return normals


def _make_axis_rotation(axes: AxisConvention) -> NDArray[np.float32]:
    """3x3, from stored to camera axes."""
    turn = np.zeros((3, 3), np.float32)
    for channel, axis in enumerate(axes):
        to, sign = _AXIS_INDEX_AND_SIGN[axis]
        turn[to, channel] = sign
    return turn


_MAX_MEAN_Z = 0.3
"""Mean z that visible surfaces cannot have, even a floor seen by a camera that looks up."""


def decode_unit_vectors(array: NDArray[Any], channels: int, file: Path) -> NDArray[np.float32]:
    """Stored directions -> HxWxC float32 of length 1, NaN where invalid.

    Args:
        array: channels last or first; floats in -1..1, or integers for which 0 is -1 and the
            type's largest value 1. A vector far from length 1 is invalid: all zeros, be it of
            floats or of integers.
        channels: C.
        file: named in errors.

    Raises:
        DataError: another number of channels, or values beyond -1..1.
    """
    stored = to_channels_last(array, channels)
    if stored.ndim != 3 or stored.shape[2] != channels or stored.dtype.kind not in "iufb":
        raise DataError(f"{file}: needs {channels} channels, found {array.dtype} {array.shape}")
    vectors = stored.astype(np.float32)
    if stored.dtype.kind in "iu":
        vectors = vectors * np.float32(2 / np.iinfo(stored.dtype).max) - 1
    elif _find_largest_component(vectors) > _MAX_COMPONENT:
        raise DataError(f"{file}: components must lie in -1..1, some do not")
    length = cv2.sqrt(cv2.transform(vectors * vectors, np.ones((1, channels), np.float32)))
    length[~((length > 0.5) & (length < (1 + np.sqrt(channels)) / 2))] = np.nan
    np.divide(vectors, length[..., None], out=vectors)
    return vectors


_MAX_COMPONENT = 1.01


def _find_largest_component(vectors: NDArray[np.float32]) -> float:
    """The largest size of a finite component; the finite are picked only where one is not."""
    if max(-vectors.min(initial=0), vectors.max(initial=0)) <= _MAX_COMPONENT:
        return _MAX_COMPONENT
    return float(np.abs(vectors[np.isfinite(vectors)]).max(initial=0))


def decode_probabilities(array: NDArray[Any], file: Path) -> NDArray[np.float32]:
    """One number a pixel -> HxW float32 in 0..1.

    Args:
        array: integers of 8 or 16 bits, whose largest value is 1, or floats from 0 to 1.
        file: named in errors.

    Raises:
        DataError: more than one channel, or out of range.
    """
    plane = to_channels_last(array)
    if plane.ndim != 2 or not plane.size or plane.dtype.kind not in "buif":
        raise DataError(f"{file}: needs one number a pixel, this is {array.dtype} {array.shape}")
    if plane.dtype in (np.uint8, np.uint16):
        return (plane / np.iinfo(plane.dtype).max).astype(np.float32)
    values = plane.astype(np.float32)
    if plane.dtype.kind not in "bf" or not ((values >= 0) & (values <= 1)).all():
        raise DataError(
            f"{file}: probabilities are floats from 0 to 1, or of 8 or 16 bits; this is "
            f"{plane.dtype} from {plane.min()} to {plane.max()}"
        )
    return values


def decode_binary(
    array: NDArray[Any],
    file: Path,
    *,
    max_value: int | None = None,
    ignore_values: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """HxW map of shares of a whole -> uint8 1 above a half, else 0, void 255.

    Args:
        array: numbers from 0 to `max_value`.
        file: named in errors.
        max_value: 1 or 255; by default 255 if any value is above 1.
        ignore_values: stored values that mark void.

    Raises:
        DataError: not one channel, or values outside 0..full.
    """
    plane = _require_2d(array, "a binary map", file)
    masked = np.isin(plane, ignore_values) if ignore_values else None
    rest = plane if masked is None else plane[~masked]
    low, high = (rest.min(), rest.max()) if rest.size else (0, 0)
    whole = max_value or (1 if high <= 1 else 255)
    if not (low >= 0 and high <= whole):
        raise DataError(f"{file}: a binary map holds 0..{whole} here, found {low} to {high}")
    binary = (plane > whole / 2).view(np.uint8)
    if masked is not None:
        binary[masked] = IGNORE_INDEX
    return binary


def _require_2d(array: NDArray[Any], description: str, file: Path) -> NDArray[Any]:
    plane = to_channels_last(array)
    if plane.ndim != 2 or plane.size == 0 or plane.dtype.kind not in "iufb":
        raise DataError(
            f"{file}: {description} need one number a pixel, found {array.dtype} {array.shape}"
        )
    return plane
