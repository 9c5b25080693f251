"""Pictures from bytes that may be anything: an array, or one line that names the source."""

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
    """The picture, or what is told."""
    try:
        return images.decode_image(data, flags, "a.png")
    except DataError as error:
        return str(error)


def is_one_line(text: str) -> bool:
    return text.startswith("a.png: ") and "\n" not in text


def png_that_claims(height: int, width: int, kind: int = 2) -> bytes:
    """A few bytes whose header promises a picture of any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(9))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_that_claims(height: int, width: int) -> bytes:
    """A whole picture but for its frame's size."""
    data = bytearray(WHOLE["jpg"])
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("kind", WHOLE)
def test_pixels_come_back(kind: str, flags: int) -> None:
    found = images.decode_image(WHOLE[kind], flags, "a")
    assert found.shape == PICTURE.shape
    assert kind == "jpg" or np.array_equal(found, PICTURE)


@pytest.mark.parametrize(
    "data",
    [
        png_that_claims(2**31 - 1, 2**31 - 1),
        png_that_claims(60_000, 60_000, kind=3),
        png_that_claims(2**15, 2**14),
        jpeg_that_claims(65_535, 65_535),
        b"\xff\xd8" + b"\xff" * 50 + jpeg_that_claims(40_000, 40_000)[2:],
    ],
    ids=["png", "palette", "just above", "jpeg", "jpeg, filled"],
)
def test_bombs_are_refused_before_they_are_decoded(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"^a\.png: a picture of \d+x\d+ pixels; at most 268 mill"):
        images.decode_image(data, cv2.IMREAD_UNCHANGED, "a.png")


@settings(max_examples=40)
@given(st.sampled_from(BEGINNINGS), st.binary(max_size=200), st.sampled_from(ENDS), st.booleans())
@example(b"\x89PNG", b"", b"IEND", True)
def test_any_bytes_are_a_picture_or_one_line(
    beginning: bytes, middle: bytes, end: bytes, colour: bool
) -> None:
    found = decoded(beginning + middle + end, FLAGS[not colour])
    assert is_one_line(found) if isinstance(found, str) else found.size


@given(st.integers(0, len(WHOLE["png"]) * 8 - 1))
def test_a_flipped_bit_of_a_png_is_told_or_without_effect(place: int) -> None:
    data = bytearray(WHOLE["png"])
    data[place // 8] ^= 1 << place % 8
    found = decoded(bytes(data), cv2.IMREAD_COLOR)
    assert is_one_line(found) if isinstance(found, str) else np.array_equal(found, PICTURE)
