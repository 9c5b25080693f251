"""Decoding of untrusted uploads: limits, orientation, downscaling and errors."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from densemtl.demo.web.upload import read_upload
from densemtl.errors import DataError


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def make_png_header(width: int, height: int) -> bytes:
    """Return a small invalid PNG file whose header states the given size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))


def test_small_image_is_decoded_unchanged(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_upload(encoded(Image.fromarray(pixels))), pixels)
    assert read_upload(encoded(Image.new("RGBA", (5, 4)))).shape == (4, 5, 3)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is on the right of the file
    assert read_upload(encoded(Image.new("RGB", (60, 40)), "JPEG", exif=exif)).shape == (60, 40, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_image_is_downscaled(kind: str) -> None:
    shown = read_upload(encoded(Image.new("RGB", (3000, 1500), (10, 200, 90)), kind))
    assert shown.shape == (480, 960, 3)
    np.testing.assert_allclose(shown.mean((0, 1)), (10, 200, 90), atol=2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"just words", "not a supported image"),
        (b"GIF89a" + bytes(50), "not a supported image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a supported image"),
        (make_png_header(50, 50), "corrupt and cannot be decoded"),
        (
            make_png_header(10_000, 5_000),
            r"too many pixels \(10000 x 5000\); downscale it to at most 40 meg",
        ),
        (make_png_header(60_000, 60_000), "too many pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_invalid_file_is_one_line_data_error(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_upload(data)
    assert "\n" not in str(caught.value)


def test_too_large_image_is_rejected_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "thumbnail", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match="too many pixels"):
        read_upload(encoded(Image.new("1", (8000, 5001))))


def test_empty_file_is_data_error() -> None:
    with pytest.raises(DataError, match="nothing was uploaded"):
        read_upload(b"")


@pytest.mark.parametrize("sent", ["not base64!", "ümlaut==", "AAA", "../../etc/passwd"])
def test_text_is_data_error(sent: str) -> None:
    with pytest.raises(DataError, match="not a supported image"):
        read_upload(sent.encode())
