"""Atomic writers of images and labels, in formats that the datasets read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.io.atomic import atomic_write

JPEG_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 95)


def write_image(file: Path, image: NDArray[Any]) -> None:
    """Write an image as PNG, or as JPEG of quality 95.

    Args:
        file: file to write; the suffix defines the format.
        image: uint8 or uint16 array, shape (H, W), or (H, W, 3) in RGB order.

    Raises:
        OutputError: if the file cannot be written.
    """
    bgr = image[..., ::-1] if image.ndim == 3 else image
    options = JPEG_QUALITY if file.suffix == ".jpg" else ()
    _, data = cv2.imencode(file.suffix, np.ascontiguousarray(bgr), options)
    with atomic_write(file) as tmp_path:
        tmp_path.write_bytes(data.tobytes())


def write_array(file: Path, array: NDArray[Any]) -> None:
    """Write an array as a .npy file.

    Args:
        file: file to write.
        array: array of any shape and type.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_write(file) as tmp_path:
        np.save(tmp_path, array)


def write_normals(file: Path, normals: NDArray[np.floating], bits: Literal[8, 16]) -> None:
    """Write normals as PNG, with -1 stored as 0, 1 as the maximum, and NaN as (0, 0, 0).

    The error is at most 0.3 degrees with 8 bits, which take a quarter of the space of 16 bits.

    Args:
        file: .png file to write.
        normals: unit vectors, shape (H, W, 3).
        bits: bits per channel.

    Raises:
        OutputError: if the file cannot be written.
    """
    levels = np.rint((normals + 1) * ((2**bits - 1) / 2))
    write_image(file, np.nan_to_num(levels).astype(np.uint8 if bits == 8 else np.uint16))


def write_split_list(file: Path, ids: list[str]) -> None:
    """Write a split list.

    Args:
        file: text file to write.
        ids: image ids, one per line.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_write(file) as tmp_path:
        tmp_path.write_text("".join(line + "\n" for line in ids), encoding="utf-8")
