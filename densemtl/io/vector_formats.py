"""Decoders from stored normals and other directions to unit vectors, which check all values.

Ignored pixels are NaN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io.arrays import to_channels_last
from densemtl.io.label_formats import make_channels_error

AxisDirection = Literal["right", "left", "down", "up", "forward", "backward"]

AxisConvention = tuple[AxisDirection, AxisDirection, AxisDirection]
"""Direction in which each of three channels increases."""

CAMERA_AXES: AxisConvention = ("right", "down", "forward")
"""Camera axes: x right, y down, z forward."""

_AXIS_INDEX_AND_SIGN: dict[AxisDirection, tuple[int, int]] = {
    "right": (0, 1),
    "left": (0, -1),
    "down": (1, 1),
    "up": (1, -1),
    "forward": (2, 1),
    "backward": (2, -1),
}

_MAX_MEAN_Z = 0.3
"""Maximum mean z. Visible surfaces have a smaller one, even a floor seen by a tilted camera."""

_MAX_COMPONENT = 1.01
"""Maximum absolute value of a component, with a tolerance for rounding."""


def decode_normals(
    array: NDArray[Any],
    file: Path,
    axes: AxisConvention = CAMERA_AXES,
) -> NDArray[np.float32]:
    """Convert stored normals to unit vectors in camera axes.

    Args:
        array: three channels, encoded as in `decode_unit_vectors`.
        file: file name for error messages.
        axes: direction in which each stored channel increases.

    Returns:
        float32 unit vectors in camera axes, shape (H, W, 3), NaN where invalid.

    Raises:
        DataError: if there are not three channels, values are outside -1..1, surfaces face away
            from the camera, or two of `axes` are on the same line.

    Example:
        >>> stored = np.full((1, 1, 3), [0.0, 0.0, 1.0])  # z toward the camera
        >>> axes = ("right", "up", "backward")
        >>> decode_normals(stored, Path("0001.npy"), axes).tolist()
        [[[0.0, 0.0, -1.0]]]
    """
    if len({_AXIS_INDEX_AND_SIGN[axis][0] for axis in axes}) < len(axes):
        raise DataError(
            f"data.normals_axes: {', '.join(axes)} omit one axis; use each of right/left, down/up"
            " and forward/backward once"
        )
    vectors = decode_unit_vectors(array, 3, file)
    normals = vectors if axes == CAMERA_AXES else cv2.transform(vectors, _make_axis_rotation(axes))
    z = cv2.extractChannel(normals, 2)
    if np.nansum(z) > _MAX_MEAN_Z * np.isfinite(z).sum():
        raise DataError(f"{file}: the surfaces face away from the camera; set data.normals_axes")
    return normals


def _make_axis_rotation(axes: AxisConvention) -> NDArray[np.float32]:
    """Return the 3x3 matrix from stored axes to camera axes."""
    rotation = np.zeros((3, 3), np.float32)
    for channel, axis in enumerate(axes):
        index, sign = _AXIS_INDEX_AND_SIGN[axis]
        rotation[index, channel] = sign
    return rotation


def decode_unit_vectors(array: NDArray[Any], channels: int, file: Path) -> NDArray[np.float32]:
    """Convert stored directions to unit vectors.

    Args:
        array: channels last or first; floats from -1 to 1, or integers where 0 is -1 and the
            maximum of the type is 1. Vectors whose length is far from 1 are invalid, for example
            those whose stored components are all 0.
        channels: number of channels C.
        file: file name for error messages.

    Returns:
        float32 unit vectors, shape (H, W, C), NaN where invalid.

    Raises:
        DataError: if the number of channels differs, or a value is outside -1..1.

    Example:
        >>> stored = np.array([[[0, 0], [0.6, 0.8]]])
        >>> decode_unit_vectors(stored, 2, Path("flow.npy")).round(2).tolist()[0][0]
        [nan, nan]
    """
    stored = to_channels_last(array, channels)
    if stored.ndim != 3 or stored.shape[2] != channels or stored.dtype.kind not in "iufb":
        raise make_channels_error(array, channels, file)
    vectors = stored.astype(np.float32)
    if stored.dtype.kind in "iu":
        vectors *= np.float32(2 / np.iinfo(stored.dtype).max)
        vectors -= 1
    elif _find_largest_component(vectors) > _MAX_COMPONENT:
        raise DataError(f"{file}: components must be in -1..1, but some are not")
    length = cv2.sqrt(cv2.transform(vectors * vectors, np.ones((1, channels), np.float32)))
    length[~((length > 0.5) & (length < (1 + np.sqrt(channels)) / 2))] = np.nan
    # Dividing maps of equal shape takes a quarter of the time of broadcasting over channels.
    np.divide(vectors, cv2.merge([length] * channels).reshape(vectors.shape), out=vectors)
    return vectors


def _find_largest_component(vectors: NDArray[np.float32]) -> float:
    """Return the largest absolute value of finite components.

    If all are within `_MAX_COMPONENT`, that limit is returned: the usual case needs no masking.
    """
    if max(-vectors.min(initial=0), vectors.max(initial=0)) <= _MAX_COMPONENT:
        return _MAX_COMPONENT
    return float(np.abs(vectors[np.isfinite(vectors)]).max(initial=0))
