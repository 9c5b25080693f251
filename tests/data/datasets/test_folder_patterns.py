"""Patterns of custom images and labels, and which files belong together."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densemtl import registry
from densemtl.data.datasets.folder import FolderDataset
from densemtl.errors import ConfigError, DataError
from tests.helpers.fake_datasets import write_image

SCENES = ["attic/1", "attic/2", "cellar/1", "cellar/2"]


def write_files(root: Path, image_paths: list[str], label_paths: list[str]) -> None:
    """Write images, and labels whose pixels are all the number of the image."""
    for number, name in enumerate(image_paths):
        write_image(root / name, np.full((2, 3, 3), number, np.uint8))
    for number, name in enumerate(label_paths):
        write_image(root / name, np.full((2, 3), number, np.uint8))


def make(
    root: Path, images: str, labels: str, split: str = "train", **options: Any
) -> FolderDataset:
    spec = {"files": labels, "class_names": [str(number) for number in range(8)]}
    options = {"root": root, "images": images, "labels": {"semseg": spec}, **options}
    return registry.create("data.datasets", "folder", split, ["semseg"], options=options)


def check_pairs(datasets: list[FolderDataset]) -> list[str]:
    """Return the ids of all splits, after checking that each image has its own label."""
    for dataset in datasets:
        for index in range(len(dataset)):
            sample = dataset[index]
            assert (sample.targets["semseg"] == sample.image[..., 0]).all(), sample.id
    return sorted(name for dataset in datasets for name in dataset.ids)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("*/color/{id}.jpg", "*/label/{id}.png"),
        ("{scene}/color/{id}.jpg", "{scene}/label/{id}.png"),
        ("*/color", "{scene}/label/{id}.png"),
        ("{scene}/color/{id}.*", "*/label"),
    ],
)
def test_scenes_with_the_same_frame_numbers(tmp_path: Path, images: str, labels: str) -> None:
    paths = [name.split("/") for name in SCENES]
    write_files(
        tmp_path,
        [f"{scene}/color/{frame}.jpg" for scene, frame in paths],
        [f"{scene}/label/{frame}.png" for scene, frame in paths],
    )
    splits = [make(tmp_path, images, labels, split) for split in ("train", "val")]
    assert check_pairs(splits) == SCENES


def test_label_of_another_scene_is_not_used(tmp_path: Path) -> None:
    write_files(
        tmp_path, [f"{scene}.png" for scene in SCENES], [f"masks/{name[-1]}.png" for name in SCENES]
    )
    with pytest.raises(DataError, match="no semseg label for any"):
        make(tmp_path, "{scene}/{id}.png", "masks/{id}.png")


def test_repeated_id_must_be_equal(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    write_files(
        tmp_path,
        [*(f"{name}/{name}_rgb.png" for name in names), "a/b_rgb.png"],
        [f"{name}/{name}_ids.png" for name in names],
    )
    pair = [make(tmp_path, "{id}/{id}_rgb.png", "{id}/{id}_ids.png", s) for s in ("train", "val")]
    assert check_pairs(pair) == names


@pytest.mark.parametrize("folders", [("train", "val"), ("training", "validation")])
def test_split_by_folder(tmp_path: Path, folders: tuple[str, str]) -> None:
    paths = [f"{folder}/KIND/{number}.png" for folder in folders for number in (1, 2)]
    write_files(
        tmp_path,
        [path.replace("KIND", "image") for path in paths],
        [path.replace("KIND", "label") for path in paths],
    )
    options = (
        {}
        if folders[0] == "train"
        else {"splits": dict(zip(("train", "val"), folders, strict=True))}
    )
    for labels in ("{split}/label/{id}.png", "{split}/label"):
        pair = [
            make(tmp_path, "{split}/image/{id}.png", labels, split, **options)
            for split in ("train", "val")
        ]
        assert check_pairs(pair) == ["1", "1", "2", "2"]
    write_files(tmp_path, [], ["all/1.png", "all/2.png"])
    with pytest.raises(DataError, match=r"both splits have an image '1'.*add \{split\}"):
        make(tmp_path, "{split}/image", "all", **options)
    with pytest.raises(ConfigError, match=r"data\.splits: both splits are the same"):
        make(tmp_path, "{split}", "{split}", splits={"train": "x", "val": "x"})


def test_masks_next_to_images_are_no_images(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.png", "b.png", "c.png"], [f"{name}_mask.png" for name in "abc"])
    pair = [make(tmp_path, "{id}.png", "{id}_mask.png", split) for split in ("train", "val")]
    assert check_pairs(pair) == ["a", "b", "c"]


def test_misnamed_masks_are_counted(tmp_path: Path) -> None:
    names = [str(number) for number in range(8)]
    write_files(
        tmp_path,
        [f"images/{name}.png" for name in names],
        [f"masks/{name}{'' if name < '2' else '_ids'}.png" for name in names],
    )
    (tmp_path / "train.txt").write_text("\n".join(names))
    splits = {"train": "train.txt", "val": "val.txt"}
    message = "masks: 6 of the 8 images of 'train' have no semseg label, the first is '2'"
    with pytest.raises(DataError, match=message):
        make(tmp_path, "images", "masks", splits=splits)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_two_files_of_the_same_id_are_an_error(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path, ["images/a.png", "images/b.png"], ["masks/a.png", "masks/b.png"])
    write_image(tmp_path / folder / "a.jpg", np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=rf"{folder}/a\.jpg and .*{folder}/a\.png: both.* id 'a'"):
        make(tmp_path, "images", "masks")


def test_image_in_both_lists_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, ["images/a.png", "images/b.png"], ["masks/a.png", "masks/b.png"])
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "val.txt").write_text("b\n")
    splits = {"train": "train.txt", "val": "val.txt"}
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"train\.txt and .*val\.txt: .* splits: 1, .*'b'"):
            make(tmp_path, "images", "masks", split, splits=splits)


def test_errors_in_patterns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.images: unknown placeholder \{name\}"):
        make(tmp_path, "{name}.png", "masks")
    with pytest.raises(ConfigError, match=r"data\.images: \*\* must be a whole folder"):
        make(tmp_path, "a**/{id}.png", "masks")


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images/{id}.png", "labels/{id}.png"), ("images/**/{id}.png", "labels/**/{id}.png")],
)
def test_linked_folders_are_searched(images: str, labels: str, tmp_path: Path) -> None:
    names = ["a/1.png", "a/2.png"]
    write_files(tmp_path / "disk", [f"i/{n}" for n in names], [f"l/{n}" for n in names])
    for target, link in (("disk/i/a", "images/a"), ("disk/l/a", "labels/a")):
        (tmp_path / link).parent.mkdir()
        (tmp_path / link).symlink_to(tmp_path / target)
    datasets = [make(tmp_path, images, labels, split) for split in ("train", "val")]
    assert check_pairs(datasets) == ["a/1", "a/2"]


def test_links_to_parents_are_not_followed(tmp_path: Path) -> None:
    names = ["a/1.png", "b/2.png", "c/3.png"]
    write_files(tmp_path / "data", names, [f"labels/{name}" for name in names])
    for number, target in enumerate((tmp_path, tmp_path / "data", tmp_path / "data/a", Path("/"))):
        (tmp_path / f"data/a/link{number}").symlink_to(target)
        (tmp_path / f"data/b/link{number}").symlink_to(target)
    datasets = [
        make(tmp_path, "data/{id}.png", "data/labels/{id}.png", split) for split in ("train", "val")
    ]
    assert check_pairs(datasets) == ["a/1", "b/2", "c/3"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    for name in "ab":
        write_files(tmp_path, [f"i/{name}/{name}.png"], [f"l/{name}/{name}.png"])
    for side in "il":
        (tmp_path / side / "a/to_b").symlink_to(tmp_path / side / "b")
        (tmp_path / side / "b/to_a").symlink_to(tmp_path / side / "a")
    datasets = [
        make(tmp_path, "i/**/{id}.png", "l/**/{id}.png", split) for split in ("train", "val")
    ]
    assert len(check_pairs(datasets)) == 2


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("{scene}/color/{id}.png", "{scene}/label/{id}.png"),
        ("*/color/{id}.png", "*/label/{id}.png"),
        ("**/color/{id}.png", "**/label/{id}.png"),
    ],
)
@pytest.mark.parametrize("closed", ["attic/color", "attic/label", "attic"])
def test_folders_that_cannot_be_read_are_an_error(
    tmp_path: Path, images: str, labels: str, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [name.split("/") for name in SCENES]
    write_files(
        tmp_path,
        [f"{scene}/color/{frame}.png" for scene, frame in paths],
        [f"{scene}/label/{frame}.png" for scene, frame in paths],
    )
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, deny(tmp_path / closed, getattr(os, name)))
    if closed == "attic" and "**" not in images:  # its subfolders have known names
        assert len(make(tmp_path, images, labels)) == 3
    else:
        with pytest.raises(DataError, match=rf"{closed}: cannot be searched: Permission denied"):
            make(tmp_path, images, labels)


def deny(folder: Path, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a function of a path fail for one folder, as for users without permission."""

    def deny_or_call(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return function(path)

    return deny_or_call
