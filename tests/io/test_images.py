"""Decoding of arbitrary bytes gives an image or an error of one line that names the source."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from densemtl.errors import DataError
from densemtl.io import images

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
WHOLE = {kind: cv2.imencode(f".{kind}", PICTURE[..., ::-1])[1].tobytes() for kind in ("png", "jpg")}
BEGINNINGS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", WHOLE["png"][:33], WHOLE["jpg"][:160]]
ENDS = [b"", b"IEND\xae\x42\x60\x82", b"\xff\xda\xff\xd9"]
FLAGS = [cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED]


def decoded(data: bytes, flags: int) -> np.ndarray | str:
    """Return the image, or the error message."""
    try:
        return images.decode_image(data, flags, "a.png")
    except DataError as error:
        return str(error)


def is_one_line(text: str) -> bool:
    return text.startswith("a.png: ") and "\n" not in text


def make_png_header(height: int, width: int, color_type: int = 2) -> bytes:
    """Make a PNG of a few bytes whose header claims any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(9))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def make_jpeg_header(height: int, width: int) -> bytes:
    """Make a complete JPEG whose frame header claims any size."""
    data = bytearray(WHOLE["jpg"])
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("kind", WHOLE)
def test_decode_image_returns_the_encoded_pixels(kind: str, flags: int) -> None:
    image = images.decode_image(WHOLE[kind], flags, "a")
    assert image.shape == PICTURE.shape
    assert kind == "jpg" or np.array_equal(image, PICTURE)


@pytest.mark.parametrize(
    "data",
    [
        make_png_header(2**31 - 1, 2**31 - 1),
        make_png_header(60_000, 60_000, color_type=3),
        make_png_header(2**15, 2**14),
        make_jpeg_header(65_535, 65_535),
        b"\xff\xd8" + b"\xff" * 50 + make_jpeg_header(40_000, 40_000)[2:],
    ],
    ids=["png", "palette", "just above", "jpeg", "jpeg, filled"],
)
def test_decompression_bombs_are_rejected_before_decoding(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"^a\.png: .* is \d+x\d+ pixels; at most 268 mill"):
        images.decode_image(data, cv2.IMREAD_UNCHANGED, "a.png")


@settings(max_examples=40)
@given(st.sampled_from(BEGINNINGS), st.binary(max_size=200), st.sampled_from(ENDS), st.booleans())
@example(b"\x89PNG", b"", b"IEND", True)
def test_arbitrary_bytes_give_an_image_or_an_error_of_one_line(
    beginning: bytes, middle: bytes, end: bytes, color: bool
) -> None:
    result = decoded(beginning + middle + end, FLAGS[not color])
    assert is_one_line(result) if isinstance(result, str) else result.size


@given(st.integers(0, len(WHOLE["png"]) * 8 - 1))
def test_flipped_bit_of_a_png_is_an_error_or_without_effect(bit: int) -> None:
    data = bytearray(WHOLE["png"])
    data[bit // 8] ^= 1 << bit % 8
    result = decoded(bytes(data), cv2.IMREAD_COLOR)
    assert is_one_line(result) if isinstance(result, str) else np.array_equal(result, PICTURE)
