"""Paths, PIL images, arrays and tensors of an image are converted to the same array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from densemtl.errors import DataError
from densemtl.io.image_inputs import to_rgb_array

PICTURE: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def test_all_input_types_give_the_same_image(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "tiff", "webp"):
        Image.fromarray(PICTURE).save(tmp_path / f"a.{suffix}", lossless=True)
    np.save(tmp_path / "a.npy", PICTURE)
    tensor = torch.from_numpy(PICTURE).permute(2, 0, 1)
    forms = [
        *tmp_path.iterdir(),
        str(tmp_path / "a.png"),
        Image.fromarray(PICTURE),
        PICTURE,
        PICTURE / 255,
        PICTURE[:, ::-1][:, ::-1],
        np.moveaxis(PICTURE, 2, 0),
        tensor,
        tensor.float() / 255,
        (tensor.float() / 255).requires_grad_(),
    ]
    assert len(forms) == 14
    for form in forms:
        picture = to_rgb_array(form)
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, PICTURE)


def test_bfloat16_tensors_and_pil_modes() -> None:
    white = torch.ones(3, 4, 5, dtype=torch.bfloat16)
    assert (to_rgb_array(white) == 255).all()
    assert to_rgb_array(Image.new("L", (5, 4), 7)).shape == (4, 5, 3)
    assert to_rgb_array(Image.new("RGBA", (5, 4), (1, 2, 3, 4)))[0, 0].tolist() == [1, 2, 3]


def test_files_are_rotated_according_to_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "a.webp", lossless=True, exif=exif)
    np.testing.assert_array_equal(to_rgb_array(tmp_path / "a.webp"), np.rot90(PICTURE, -1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PICTURE[..., :2], "needs 3 channels"),
        (PICTURE.astype(np.float32), "float from 0 to 1; this is float32 from 0"),
        (PICTURE[None], r"pass list\(array\)"),
        (np.zeros((0, 4, 3), np.uint8), "needs 3 channels"),
        (7, "not int"),
        (Path("nowhere.webp"), r"nowhere\.webp"),
    ],
)
def test_invalid_image_is_an_error(image: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_rgb_array(image)  # type: ignore[arg-type]


def test_error_names_the_broken_file(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(b"RIFF0000WEBPbroken")
    with pytest.raises(DataError, match=r"a\.webp: cannot be read as an image"):
        to_rgb_array(tmp_path / "a.webp")
