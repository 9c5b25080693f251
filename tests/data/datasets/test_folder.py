"""Custom images and label maps, as described in the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densemtl import registry
from densemtl.config import yaml_loader
from densemtl.config.experiment import validate_experiment
from densemtl.data.datasets.folder import FolderDataset
from densemtl.errors import ConfigError, DataError
from densemtl.types import IGNORE_INDEX
from tests.helpers import fake_datasets
from tests.helpers.experiments import TINY_CONFIG

TASKS = ["semseg", "depth", "water", "flow"]


def make(split: str, tasks: list[str], options: dict[str, Any]) -> FolderDataset:
    return registry.create("data.datasets", "folder", split, tasks, options=options)


def test_labels_of_every_kind(tmp_path: Path) -> None:
    options = fake_datasets.write_custom_folder(tmp_path)
    dataset = make("train", TASKS, options)
    assert dataset.ids == ("shot1", "shot2")
    sample, scene = dataset[0], fake_datasets.FakeScene(0, fake_datasets.SIZE)
    stored, water = scene.make_ids(4), scene.make_ids(2)
    np.testing.assert_array_equal(sample.image, scene.image)
    np.testing.assert_array_equal(
        sample.targets["semseg"], np.array([IGNORE_INDEX, 0, 1, 2])[stored]
    )
    np.testing.assert_array_equal(sample.targets["water"], water)
    np.testing.assert_allclose(sample.targets["depth"][1:], scene.depth[1:], atol=6e-4)
    assert np.isnan(sample.targets["depth"][0, 0])
    np.testing.assert_allclose(sample.targets["flow"], scene.normals[..., :2], rtol=1e-6)
    assert [sample.targets[task].dtype.name for task in TASKS] == [
        "uint8",
        "float32",
        "uint8",
        "float32",
    ]


def test_task_defaults_follow_the_description(tmp_path: Path) -> None:
    parsed = registry.parse_options(FolderDataset, fake_datasets.write_custom_folder(tmp_path))
    assert FolderDataset.task_defaults(**parsed) == {
        "semseg": {"class_names": ["road", "car", "sky"]},
        "depth": {},
        "water": {"kind": "binary"},
        "flow": {"kind": "regression", "channels": 2},
    }


def test_configuration_with_custom_labels_is_validated(tmp_path: Path) -> None:
    """The kinds of the labels become the kinds of the tasks, and the error names a wrong key."""
    options = fake_datasets.write_custom_folder(tmp_path)
    document = {**TINY_CONFIG, "tasks": TASKS, "data": {"name": "folder", **options}}
    assert (
        validate_experiment(yaml_loader.apply_overrides(document, [], "own")).list_task_names()
        == TASKS
    )
    options["labels"]["depth"]["scael"] = 1
    with pytest.raises(ConfigError, match=r"data\.labels\.depth\.scael"):
        validate_experiment(yaml_loader.apply_overrides(document, [], "own"))


def test_patterns_match_in_subfolders(tmp_path: Path) -> None:
    for city, number in (("ulm", 1), ("ulm", 2), ("bonn", 1)):
        scene = fake_datasets.FakeScene(number, (8, 9))
        fake_datasets.write_image(tmp_path / "left" / city / f"{number}_left.png", scene.image)
        fake_datasets.write_image(tmp_path / "fine" / city / f"{number}_ids.png", scene.make_ids(2))
    options = {
        "root": tmp_path,
        "images": "left/{id}_left.png",
        "labels": {"semseg": {"files": "fine/{id}_ids.png", "class_names": ["a", "b"]}},
        "val_fraction": 0.3,
    }
    both = [make(split, ["semseg"], options) for split in ("train", "val")]
    assert sorted([*both[0].ids, *both[1].ids]) == ["bonn/1", "ulm/1", "ulm/2"]
    assert [len(dataset) for dataset in both] == [2, 1]
    assert all("semseg" in dataset[0].targets for dataset in both)


def test_split_by_hash_is_stable_when_images_are_added(tmp_path: Path) -> None:
    def ids(split: str, count: int) -> set[str]:
        fake_datasets.write_custom_folder(tmp_path, count, (4, 5))
        labels = {"depth": {"files": "depth"}}
        options = {"root": tmp_path, "images": "images", "labels": labels}
        return set(make(split, [], options).ids)

    train, val = ids("train", 20), ids("val", 20)
    assert len(val) == 4
    assert not train & val
    assert len(train | val) == 20
    assert len(val & ids("val", 25)) >= 3


def test_labels_may_be_missing_for_some_images_but_not_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = fake_datasets.write_custom_folder(tmp_path)
    (tmp_path / "depth" / "shot1.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 images of 'train' have no depth.*allow_missi"):
        make("train", TASKS, options)
    options["labels"]["depth"]["allow_missing"] = True
    dataset = make("train", TASKS, options)
    assert "1 of the 2 images of 'train' have no depth label" in capsys.readouterr().out
    assert "depth" not in dataset[0].targets
    assert "depth" in dataset[1].targets
    (tmp_path / "depth" / "shot2.png").unlink()
    with pytest.raises(DataError, match="depth: no depth label for any of the 2 images"):
        make("train", TASKS, options)


def test_errors_in_files(tmp_path: Path) -> None:
    options = fake_datasets.write_custom_folder(tmp_path)
    mask = tmp_path / "masks" / "shot1_mask.png"
    fake_datasets.write_image(mask, np.full(fake_datasets.SIZE, 4, np.uint8))
    with pytest.raises(DataError, match=r"shot1_mask\.png: class id 4"):
        make("train", ["semseg"], options)[0]
    fake_datasets.write_image(mask, np.ones((5, 5), np.uint8))
    with pytest.raises(
        DataError, match=r"shot1_mask\.png: the label is 5x5 pixels, its image 48x64"
    ):
        make("train", ["semseg"], options)[0]
    with pytest.raises(DataError, match="no images here"):
        make("train", [], {**options, "images": "photos"})


def test_errors_in_the_description(tmp_path: Path) -> None:
    options = fake_datasets.write_custom_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"labels\.heat\.encoding.*'heat'"):
        make("train", ["heat"], {**options, "labels": {"heat": {"files": "depth"}}})
    with pytest.raises(ConfigError, match=r"labels\.semseg\.class_names"):
        make("train", ["semseg"], {**options, "labels": {"semseg": {"files": "masks"}}})
    with pytest.raises(ConfigError, match="val_fraction"):
        make("train", [], {**options, "splits": None, "val_fraction": 2})


def test_axes_of_normals_and_scale_of_numbers(tmp_path: Path) -> None:
    options = fake_datasets.write_custom_folder(tmp_path)
    up = np.broadcast_to(np.array([0, 0, 1.0]), (*fake_datasets.SIZE, 3))
    fake_datasets.write_array(tmp_path / "n" / "shot1.npy", up)
    fake_datasets.write_image(
        tmp_path / "h" / "shot1.png", np.full(fake_datasets.SIZE, 250, np.uint16)
    )
    labels = {
        "normals": {"files": "n", "axes": ["right", "forward", "up"], "allow_missing": True},
        "height": {"files": "h", "kind": "regression", "scale": 0.01, "allow_missing": True},
    }
    targets = make("train", ["normals", "height"], {**options, "labels": labels})[0].targets
    np.testing.assert_array_equal(targets["normals"][5, 5], [0, -1, 0])
    np.testing.assert_allclose(targets["height"], 2.5)
