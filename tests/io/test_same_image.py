"""Every entry point reads an image file as the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densemtl.demo.web.upload import read_upload
from densemtl.errors import DataError
from densemtl.io import arrays, images
from densemtl.io.image_inputs import to_rgb_array

RGB: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
GRAY = RGB[..., 0]
GRAY_RGB = np.repeat(GRAY[..., None], 3, axis=2)
DEEP = (GRAY.astype(np.uint16) << 8) + 77
UNIT = GRAY.astype(np.float32) / 255
EXIF_NUMBER = 0x0112

Reader = Callable[[Path], NDArray[Any]]
READERS: dict[str, Reader] = {
    "dataset": arrays.read_image,
    "path": to_rgb_array,
    "PIL": lambda file: to_rgb_array(Image.open(file)),
    "upload": lambda file: read_upload(file.read_bytes()),
}


def save(file: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(file, **options)
    return file


def make_palette_image() -> Image.Image:
    image = Image.fromarray(GRAY)
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    return image


def read_all(file: Path) -> dict[str, NDArray[Any]]:
    """Read a file by each entry point; the web page accepts no TIFF."""
    readers = {name: read for name, read in READERS.items() if name != "upload"}
    return {name: read(file) for name, read in (readers if "tif" in file.name else READERS).items()}


@pytest.mark.parametrize(
    ("name", "picture", "expected"),
    [
        ("a.png", Image.fromarray(GRAY), GRAY_RGB),
        ("a.png", Image.fromarray(DEEP), GRAY_RGB),
        ("a.tif", Image.fromarray(DEEP), GRAY_RGB),
        ("a.tiff", Image.fromarray(DEEP.astype(">u2")), GRAY_RGB),
        ("a.tif", Image.fromarray(DEEP.astype(np.int32)), GRAY_RGB),
        ("a.tif", Image.fromarray(UNIT), GRAY_RGB),
        ("a.png", make_palette_image(), np.stack([GRAY, 255 - GRAY, 0 * GRAY + 7], -1)),
        ("a.png", Image.fromarray(np.dstack([RGB, GRAY])), RGB),
        ("a.png", Image.fromarray(np.dstack([GRAY, 255 - GRAY])), GRAY_RGB),
        ("a.bmp", Image.fromarray(RGB), RGB),
        ("a.tif", Image.fromarray(RGB), RGB),
        ("a.png", Image.fromarray(GRAY > 127), 255 * (GRAY_RGB > 127)),
        ("a.jpg", Image.new("CMYK", (14, 9), (0, 255, 255, 0)), np.full((9, 14, 3), (255, 0, 0))),
        ("a.webp", Image.new("RGB", (14, 9), (10, 20, 30)), np.full((9, 14, 3), (10, 20, 30))),
    ],
)
def test_all_entry_points_agree(
    tmp_path: Path, name: str, picture: Image.Image, expected: NDArray[Any]
) -> None:
    lossless = {"lossless": True} if name.endswith("webp") else {}
    for image in read_all(save(tmp_path / name, picture, **lossless)).values():
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_all_entry_points_apply_every_orientation(tmp_path: Path, name: str, number: int) -> None:
    """The stored pixels are the upright ones, turned back."""
    upright = cv2.resize(RGB, (112, 72), interpolation=cv2.INTER_CUBIC)
    to_stored: dict[int, NDArray[Any]] = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[EXIF_NUMBER] = number
    options = {"lossless": True} if name == "a.webp" else {"quality": 100, "subsampling": 0}
    picture = Image.fromarray(np.ascontiguousarray(to_stored[number]))
    file = save(tmp_path / name, picture, exif=exif, **(options if "p" in name else {}))
    for image in [*read_all(file).values(), arrays.read_array(file)]:
        np.testing.assert_allclose(image, upright, atol=4 if name == "a.jpg" else 0)
    assert arrays.read_orientation(file) == number


def test_ordinary_images_are_decoded_as_by_opencv(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        file = save(tmp_path / f"a.{suffix}", Image.fromarray(RGB))
        np.testing.assert_array_equal(arrays.read_image(file), cv2.imread(str(file))[..., ::-1])
        assert arrays.read_orientation(file) is None


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tif", "lzw.tif"])
def test_trailing_bytes_are_accepted_and_truncated_images_are_not(
    tmp_path: Path, name: str
) -> None:
    options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    file = save(tmp_path / name, Image.fromarray(RGB), **options)
    data = file.read_bytes()
    expected = arrays.read_image(file)
    for trailing in (bytes(300), b"\xff\xd8\xff\xda\xff\xe1 next image", b"IDAT" * 99):
        file.write_bytes(data + trailing)
        for image in read_all(file).values():
            np.testing.assert_allclose(image, expected, atol=4)
    for fraction in (0.1, 0.4, 0.7, 0.95):
        part = data[: int(fraction * len(data))]
        file.write_bytes(part)
        for read in (arrays.read_image, arrays.read_array, to_rgb_array):
            with pytest.raises(DataError, match=rf"{name}: [^\n]*$"):
                read(file)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_complete_image_after_a_truncated_one_is_an_error(tmp_path: Path, name: str) -> None:
    file = save(tmp_path / name, Image.fromarray(RGB))
    data = file.read_bytes()
    file.write_bytes(data[: int(0.95 * len(data))] + data)
    with pytest.raises(DataError, match="truncated"):
        arrays.read_image(file)


def test_stored_values_of_labels_keep_their_type(tmp_path: Path) -> None:
    for values in (GRAY, DEEP, UNIT):
        file = save(tmp_path / "a.tif", Image.fromarray(values))
        np.testing.assert_array_equal(arrays.read_array(file), values, strict=True)
    palette = save(tmp_path / "palette.bmp", make_palette_image())
    np.testing.assert_array_equal(arrays.read_array(palette), GRAY)
    assert arrays.index_by_stem(tmp_path) == {"a": tmp_path / "a.tif", "palette": palette}


@pytest.mark.parametrize(
    "values",
    [2 * UNIT, UNIT - 1, np.where(UNIT > 0.5, np.nan, UNIT), GRAY.astype(np.int32)],
    ids=["above 1", "negative", "NaN", "32 bits of unknown range"],
)
def test_numbers_of_unknown_range_are_an_error(tmp_path: Path, values: NDArray[Any]) -> None:
    file = save(tmp_path / "a.tif", Image.fromarray(values.astype(values.dtype)))
    for read in (arrays.read_image, READERS["PIL"]):
        with pytest.raises(DataError, match="must be uint8, uint16, or float from 0 to 1; this is"):
            read(file)


def test_arrays_of_16_bits_are_read_like_files() -> None:
    deep = RGB.astype(np.uint16) << 8
    np.testing.assert_array_equal(to_rgb_array(deep), RGB)


@pytest.mark.parametrize("data", [b"", b"plain text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a"])
def test_other_files_are_an_error_that_names_the_formats(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    reason = "cannot be read as an image" if data == b"GIF89a" else "truncated, or not an image"
    with pytest.raises(DataError, match=rf"a\.png: {reason}.* use PNG, JPEG, TIFF"):
        arrays.read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_broken_exif_is_ignored() -> None:
    buffer = BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert images.decode_image(buffer.getvalue(), cv2.IMREAD_COLOR, "a").shape == RGB.shape
    assert images.read_orientation(buffer.getvalue()) is None
