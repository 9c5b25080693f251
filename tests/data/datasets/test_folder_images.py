"""Images of a custom dataset with other channels than RGB, and with several files each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densemtl import registry
from densemtl.data.datasets.folder import FolderDataset
from densemtl.data.image_format import get_image_format
from densemtl.errors import ConfigError, DataError
from densemtl.types import ImageFormat
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.fake_datasets import FakeScene, write_array, write_image

SIZE = (16, 24)
OPTIONS: dict[str, Any] = {
    "images": ["color", "infrared/{id}_ir.png"],
    "channels": 4,
    "labels": {"semseg": {"files": "masks", "class_names": ["a", "b", "c", "d"]}},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate("abcdef"):
        scene = FakeScene(number, SIZE)
        write_image(tmp_path / "color" / f"{name}.png", scene.image)
        write_image(tmp_path / "infrared" / f"{name}_ir.png", scene.image[..., 0])
        write_image(tmp_path / "depth" / f"{name}.png", scene.image[..., 1].astype(np.uint16) * 99)
        write_image(tmp_path / "masks" / f"{name}.png", scene.make_ids(4))
    return tmp_path


def make(root: Path, **options: Any) -> FolderDataset:
    options = {"root": root, **OPTIONS, **options}
    return registry.create("data.datasets", "folder", "train", ["semseg"], options=options)


def test_files_of_a_sample_are_joined(root: Path) -> None:
    dataset = make(root)
    sample, scene = dataset[0], FakeScene("abcdef".index(dataset.ids[0]), SIZE)
    assert sample.image.dtype == np.uint8
    np.testing.assert_array_equal(sample.image, scene.image[..., [0, 1, 2, 0]])
    deep = make(root, images=["color", "infrared/{id}_ir.png", "depth"], channels=5)[0].image
    assert deep.dtype == np.float32
    np.testing.assert_array_equal(deep[..., :4], sample.image)
    np.testing.assert_allclose(deep[..., 4], scene.image[..., 1] * (99 / 257), rtol=1e-6)


def test_further_files_are_no_images_of_their_own(root: Path) -> None:
    for file in (root / "infrared").iterdir():
        file.rename(root / "color" / file.name)
    images = ["color/{id}.png", "color/{id}_ir.png"]
    assert all(len(name) == 1 for name in make(root, images=images).ids)


def test_caches_notice_changes_of_every_file(root: Path) -> None:
    dataset = make(root)
    before = dataset.get_sample_version(0)
    write_image(root / "infrared" / f"{dataset.ids[0]}_ir.png", np.zeros((9, 9), np.uint8))
    assert dataset.get_sample_version(0) != before


def test_a_single_channel_is_not_repeated(root: Path) -> None:
    options = {"images": "infrared/{id}_ir.png"}
    assert make(root, **options, channels=1)[0].image.shape == (*SIZE, 1)
    assert make(root, **options, channels=None)[0].image.shape == (*SIZE, 3)


def test_floats_keep_their_values_only_with_channels(root: Path) -> None:
    values = np.linspace(0, 1, 3 * 16 * 24).reshape(16, 24, 3).astype(np.float32)
    for name in "abcdef":
        write_array(root / "arrays" / f"{name}.npy", values)
    kept = make(root, images="arrays", channels=3)[0].image
    np.testing.assert_allclose(kept, 255 * values, rtol=1e-6)
    assert make(root, images="arrays", channels=None)[0].image.dtype == np.uint8


def test_missing_files_are_one_line(root: Path) -> None:
    dataset = make(root)
    (root / "infrared" / f"{dataset.ids[1]}_ir.png").unlink()
    with pytest.raises(DataError, match=r"infrared.*1 of the 5 images have no such file"):
        make(root)
    with pytest.raises(DataError, match=r"nowhere.*5 of the 5 images"):
        make(root, images=["color", "nowhere"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 5}, r"color.[a-f]\.png, .*_ir\.png: 3 \+ 1 channels, expected 5"),
        ({"images": "color"}, r"color.[a-f]\.png: 3 channels, expected 4"),
    ],
)
def test_wrong_channels_name_the_files(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(root, **options)[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("images: x", ImageFormat()),
        ("images: [x]", ImageFormat()),
        ("images: x, channels: 3", ImageFormat(3, (0, 1, 2), is_rgb=False)),
        ("images: [x, y], channels: 4", ImageFormat(4, None, is_rgb=False)),
        (
            "images: [x, y], channels: 4, rgb_channels: [2, 1, 0]",
            ImageFormat(4, (2, 1, 0), is_rgb=False),
        ),
    ],
)
def test_image_format_follows_from_the_options(options: str, expected: ImageFormat) -> None:
    data = f"data={{name: folder, root: x, labels: {{depth: {{files: x}}}}, {options}}}"
    assert get_image_format(make_tiny_experiment("tasks=[depth]", data).data) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("images: []", "images"),
        ("images: 3", "images: must be a folder or pattern, or a list of these"),
        ("images: [x, y]", "channels: must be given if images have several files"),
        ("images: x, channels: 0", "channels: Input should be greater than or equal to 1"),
        ("images: x, channels: 2, rgb_channels: [0, 1, 2]", "rgb_channels: .* from 0 to 1"),
        ("images: x, channels: 5, rgb_channels: [0, 1, 1]", "rgb_channels: must be three diff"),
        ("images: x, rgb_channels: [0, 1, 2]", "rgb_channels: needs data.channels"),
    ],
)
def test_wrong_options_are_one_line(options: str, message: str) -> None:
    data = f"data={{name: folder, root: x, labels: {{depth: {{files: x}}}}, {options}}}"
    with pytest.raises(ConfigError, match=rf"data\.{message}") as error:
        make_tiny_experiment("tasks=[depth]", data)
    assert "\n" not in str(error.value)
