"""Decoders from stored numbers, such as depth, to float maps in the layout of `Sample`.

Ignored pixels are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io.arrays import to_channels_last
from densemtl.io.label_formats import make_channels_error, require_2d


def decode_depth(
    array: NDArray[Any], file: Path, *, meters_per_step: float = 1e-3, max_depth: float = 100.0
) -> NDArray[np.float32]:
    """Convert stored depth to meters.

    Args:
        array: floats in meters, or integers in steps of `meters_per_step`; shape (H, W). 0 and NaN
            mark unknown depth.
        file: file name for error messages.
        meters_per_step: meters per step of an integer map.
        max_depth: maximum valid depth in meters.

    Returns:
        float32 depth in meters, shape (H, W), NaN where unknown.

    Raises:
        DataError: if the map has 8 bits or no valid pixel, or a value is negative, infinite or
            too large.

    Example:
        >>> millimeters = np.array([[0, 2000]], np.uint16)
        >>> decode_depth(millimeters, Path("0001.png")).tolist()
        [[nan, 2.0]]
    """
    plane = require_2d(array, "depth", file)
    if plane.dtype == np.uint8:
        raise DataError(f"{file}: 8-bit depth has no unit; save 16-bit millimeters or meters")
    depth = plane.astype(np.float32)
    if plane.dtype.kind in "iu":
        depth *= np.float32(meters_per_step)
    if np.isinf(depth).any() or (depth < 0).any():
        raise DataError(f"{file}: infinite or negative depth; unknown depth must be 0 or NaN")
    depth[depth == 0] = np.nan
    if np.isnan(depth).all():
        raise DataError(f"{file}: no pixel has a depth, all are 0 or NaN; remove the file")
    if np.nanmax(depth) > max_depth:
        far = f"{np.nanmax(depth):g} m exceeds {max_depth:g} m"
        raise DataError(f"{file}: depth of {far}; floats must be meters, integers millimeters")
    return depth


def mask_saturated_depth(array: NDArray[Any]) -> NDArray[Any]:
    """Replace stored depth at the end of the range of its type, such as that of the sky, by NaN.

    Args:
        array: stored depth of any type and shape.

    Returns:
        The array, in which infinity, 65504 in float maps (the maximum of float16) and 65535 in
        uint16 maps are NaN.

    Example:
        >>> mask_saturated_depth(np.array([2000, 65535], np.uint16)).tolist()
        [2000.0, nan]
    """
    if array.dtype.kind == "f":
        saturated = np.isposinf(array) | (array == np.finfo(np.float16).max)
    elif array.dtype == np.uint16:
        saturated = array == np.iinfo(np.uint16).max
    else:
        return array
    return np.where(saturated, np.float32(np.nan), array) if saturated.any() else array


def decode_numbers(
    array: NDArray[Any],
    channels: int,
    file: Path,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    inverse: bool = False,
    valid_range: tuple[float, float] | None = None,
    ignore_values: Sequence[float] = (),
) -> NDArray[np.float32]:
    """Convert stored numbers v to floats `scale` v + `offset`, or 1 / (`scale` v + `offset`).

    Args:
        array: numbers, channels last or first; NaN marks ignored pixels.
        channels: number of channels C.
        file: file name for error messages.
        scale: factor by which the numbers are multiplied.
        offset: number that is added after the multiplication.
        inverse: whether the results are inverted, as in the conversion from disparity to depth; 0
            and negative numbers are then ignored.
        valid_range: smallest and largest valid result; others are ignored.
        ignore_values: stored values of ignored pixels, compared in each channel; may contain
            infinity.

    Returns:
        float32 values, shape (H, W) for one channel, otherwise (H, W, C); NaN where ignored.

    Raises:
        DataError: if the number of channels differs, or a value is infinite and not ignored.

    Example:
        >>> stored = np.array([[250, 65535]], np.uint16)
        >>> file = Path("height/0001.png")
        >>> decode_numbers(stored, 1, file, scale=0.5, ignore_values=[65535]).tolist()
        [[125.0, nan]]
        >>> decode_numbers(stored, 1, file, scale=0.002, inverse=True, valid_range=(1, 9)).tolist()
        [[2.0, nan]]
    """
    stored = to_channels_last(array, channels)
    channel_shape = (channels,) if channels > 1 else ()
    wrong = stored.ndim != 2 + len(channel_shape) or stored.shape[2:] != channel_shape
    if wrong or stored.dtype.kind not in "iufb":
        raise make_channels_error(array, channels, file)
    values = stored.astype(np.float32) * np.float32(scale)
    if offset:
        values += np.float32(offset)
    if inverse:
        values[values <= 0] = np.nan
        with np.errstate(over="ignore"):  # the inverse of a tiny number is reported as infinite
            np.divide(1, values, out=values)
    values[_find_values(stored, ignore_values)] = np.nan
    if valid_range is not None:
        values[(values < valid_range[0]) | (values > valid_range[1])] = np.nan
    if np.isinf(values).any():
        raise DataError(
            f"{file}: infinite values; ignored pixels must be NaN, or add .inf to ignore_values"
        )
    return values


def _find_values(stored: NDArray[Any], values: Sequence[float]) -> NDArray[np.bool_]:
    """Return where an array has one of some values, rounded to the type of the array."""
    wanted = np.asarray(values, np.float64)
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = wanted.astype(stored.dtype)
        wanted = rounded[np.isfinite(rounded) == np.isfinite(wanted)]
    return np.isin(stored, wanted)
