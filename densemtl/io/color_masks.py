"""Label maps that store each class as an RGB color."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io.bounded import MAX_TEXT_BYTES, read_bytes
from densemtl.types import RGBImage

Color = tuple[int, int, int]
"""(R, G, B), 0..255."""

_PALETTE_LINE = re.compile(r"\s*(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?:[\s,;]+(.*?))?\s*")


def decode_colors(
    image: RGBImage, color_to_class: Mapping[Color, int], file: Path
) -> NDArray[np.uint8]:
    """Map colors to classes.

    Args:
        image: RGB image, shape (H, W, 3).
        color_to_class: {color: class, or 255 for ignored pixels}.
        file: file name for error messages.

    Returns:
        uint8 classes, shape (H, W).

    Raises:
        DataError: if a pixel has a color that is not in `color_to_class`.

    Example:
        >>> mask = np.array([[[128, 64, 128], [0, 0, 0]]], np.uint8)
        >>> decode_colors(mask, {(128, 64, 128): 0, (0, 0, 0): 255}, Path("0001.png")).tolist()
        [[0, 255]]
    """
    classes_by_code = {_encode(color): number for color, number in color_to_class.items()}
    codes = np.array(sorted(classes_by_code), np.int32)
    classes = np.array([classes_by_code[code] for code in codes.tolist()], np.uint8)
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))
    pixels = (red << 16) | (green << 8) | blue
    positions = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
    unknown = codes[positions] != pixels
    if unknown.any():
        row, column = np.argwhere(unknown)[0].tolist()
        color = ", ".join(map(str, image[row, column].tolist()))
        raise DataError(
            f"{file}: the color [{color}] at row {row}, column {column} is not in the palette of"
            f" {len(codes)} colors ({unknown.mean():.1%} of the pixels have unknown colors); add it"
            " to palette or ignore_colors, and store masks without lossy compression"
        )
    return classes[positions]


def _encode(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def read_palette(file: Path, class_names: Sequence[str]) -> tuple[Color, ...]:
    """Read the colors of classes from a text file.

    Args:
        file: UTF-8 text file with one line `R G B` or `R G B name` per class, in the order of
            `class_names`. Blank lines and lines that begin with # are skipped.
        class_names: names of the classes, which names in the file must equal.

    Returns:
        The color of each class.

    Raises:
        DataError: if the file cannot be read, a line is no color, or a name differs.
    """
    try:
        lines = read_bytes(file, MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise DataError(f"{file}: cannot read the palette ({reason}); check the path") from error
    colors: list[Color] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _PALETTE_LINE.fullmatch(line)
        color = tuple(int(match[group]) for group in (1, 2, 3)) if match else (256,)
        if match is None or max(color) > 255:
            raise DataError(
                f"{file}: line {number} is no color; use `R G B name` with numbers from 0 to 255"
            )
        expected = class_names[len(colors)] if len(colors) < len(class_names) else None
        if match[4] and match[4] != expected:
            raise DataError(
                f"{file}: line {number} is the color of {match[4][:50]!r}, but class"
                f" {len(colors)} is {expected!r}; sort the lines like class_names"
            )
        colors.append((color[0], color[1], color[2]))
    return tuple(colors)
