"""Images and labels to files, each whole or not at all, in formats that the loaders read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.io.atomic import atomic_write

JPEG_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 95)


def write_image(file: Path, image: NDArray[Any]) -> None:
    """HxW, or HxWx3 RGB, of 8 or 16 bits, as PNG or JPEG by the file's suffix."""
    blue_first = image[..., ::-1] if image.ndim == 3 else image
    options = JPEG_QUALITY if file.suffix == ".jpg" else ()
    _, data = cv2.imencode(file.suffix, np.ascontiguousarray(blue_first), options)
    with atomic_write(file) as tmp_path:
        tmp_path.write_bytes(data.tobytes())


def write_array(file: Path, array: NDArray[Any]) -> None:
    """Any array as .npy."""
    with atomic_write(file) as tmp_path:
        np.save(tmp_path, array)


def write_normals(file: Path, normals: NDArray[np.floating], bits: Literal[8, 16]) -> None:
    """HxWx3 unit vectors as PNG, where 0 is -1 and the largest value 1; NaN is (0, 0, 0).

    Of 8 bits they are right to 0.3 degrees, and take a quarter of the space.
    """
    levels = np.rint((normals + 1) * ((2**bits - 1) / 2))
    write_image(file, np.nan_to_num(levels).astype(np.uint8 if bits == 8 else np.uint16))


def write_split_list(file: Path, ids: list[str]) -> None:
    """A split list."""
    with atomic_write(file) as tmp_path:
        tmp_path.write_text("".join(line + "\n" for line in ids), encoding="utf-8")
