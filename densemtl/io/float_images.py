"""Readers of images of floats: PFM, and OpenEXR by the package of this name.

Sizes in the headers are checked before anything is allocated.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError, shorten_error
from densemtl.io.array_files import MAX_ARRAY_BYTES, select_name
from densemtl.io.bounded import check_file, check_size, read_bytes
from densemtl.io.images import REDOWNLOAD_HINT

_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s")

_RGB = ("R", "G", "B")


def read_pfm(file: Path) -> NDArray[Any]:
    """Read a portable float map, as in the Middlebury and Scene Flow datasets.

    Args:
        file: .pfm file, gray (`Pf`) or RGB (`PF`), whose rows are stored from the bottom up.

    Returns:
        float32 array of shape (H, W) or (H, W, 3), rows from the top down. Only the sign of the
        scale in the header is used, which is the byte order.

    Raises:
        DataError: if the file is too large.
        OSError: if the file cannot be read.
        ValueError: if it is truncated or corrupt.
    """
    data = read_bytes(file, 2 * MAX_ARRAY_BYTES)
    header = _PFM_HEADER.match(data)
    if header is None:
        raise ValueError("not a portable float map")
    width, height, channels = int(header[2]), int(header[3]), 3 if header[1] == b"PF" else 1
    check_size(4 * width * height * channels, MAX_ARRAY_BYTES, file)
    dtype = "<f4" if float(header[4]) < 0 else ">f4"
    if len(data) != header.end() + 4 * width * height * channels:
        raise ValueError(f"truncated, or not {width}x{height} pixels as the header states")
    values = np.frombuffer(data, dtype, offset=header.end()).astype(np.float32)
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.ascontiguousarray(values.reshape(shape)[::-1])


def read_exr(file: Path, key: str | None) -> NDArray[Any]:
    """Read channels of an OpenEXR image.

    Args:
        file: .exr file of one part.
        key: name of a channel, such as Z; by default the only one, or R, G and B.

    Returns:
        float16, float32 or uint32 array of shape (H, W), or (H, W, 3) for R, G and B.

    Raises:
        DataError: if OpenEXR is not installed, or if the file cannot be read, is too large, or has
            no such channel.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise DataError(
            f'{file}: EXR files need another package; run `pip install "densemtl[exr]"`'
        ) from error
    check_file(file, 2 * MAX_ARRAY_BYTES)
    try:
        with OpenEXR.File(str(file), separate_channels=True, header_only=True) as image:
            low, high = image.header()["dataWindow"]
            names = [channel.name for channel in image.header()["channels"]]
        size = int(high[0] - low[0] + 1) * int(high[1] - low[1] + 1)
        check_size(4 * size * len(names), MAX_ARRAY_BYTES, file)
        is_rgb = key is None and {*_RGB} <= {*names} <= {*_RGB, "A"}
        selected = _RGB if is_rgb else (select_name(names, key, file),)
        with OpenEXR.File(str(file), separate_channels=True) as image:
            channels = image.channels()
            planes = [np.asarray(channels[name].pixels) for name in selected]
    except DataError:
        raise
    except Exception as error:  # OpenEXR raises many types
        raise DataError(
            f"{file}: cannot be read ({shorten_error(error)}); {REDOWNLOAD_HINT}"
        ) from error
    return np.dstack(planes) if is_rgb else planes[0]
