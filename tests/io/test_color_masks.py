"""Label maps that store classes as colors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.errors import DataError
from densemtl.io.color_masks import decode_colors, read_palette
from densemtl.types import IGNORE_INDEX

FILE = Path("some", "mask.png")
COLORS = {(0, 0, 1): 0, (0, 1, 0): 1, (255, 255, 255): 2, (1, 0, 0): IGNORE_INDEX}


def test_colors_become_classes() -> None:
    mask = np.array([list(COLORS), list(COLORS)[::-1]], np.uint8)
    classes = decode_colors(mask, COLORS, FILE)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, [[0, 1, 2, 255], [255, 2, 1, 0]])


@pytest.mark.parametrize("color", [(0, 0, 0), (0, 0, 2), (254, 255, 255), (255, 0, 0)])
def test_unknown_color_is_an_error(color: tuple[int, int, int]) -> None:
    mask = np.array([[(0, 1, 0), (0, 1, 0)], [(0, 1, 0), color]], np.uint8)
    text = rf"mask\.png: the color \[{', '.join(map(str, color))}\] at row 1, column 1 .*25\.0%"
    with pytest.raises(DataError, match=text):
        decode_colors(mask, COLORS, FILE)


def test_palette_file_with_and_without_names(tmp_path: Path) -> None:
    file = tmp_path / "colors.txt"
    file.write_text("# Example\n\n 128 64 128\tsome road \n0, 0, 142\n", encoding="utf-8")
    assert read_palette(file, ["some road", "car"]) == ((128, 64, 128), (0, 0, 142))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n4 5\n", "line 2 is no color"),
        ("1 2 256 a\n", "line 1 is no color"),
        ("1 2 3 b\n", "line 1 is the color of 'b', but class 0 is 'a'"),
        ("1 2 3\n1 2 4\n1 2 5 c\n", "line 3 is the color of 'c', but class 2 is None"),
        ("\udc80", "no UTF-8"),
        (None, "No such file"),
    ],
)
def test_wrong_palette_files_are_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "colors.txt"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=rf"colors\.txt: .*{message}"):
        read_palette(file, ["a", "b"])
