"""Tiny datasets on disk in the layouts of the real archives, with random but valid content.

By default, each writer writes four images, two per split.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from densemtl.types import Size

Array = NDArray[Any]
SIZE = (48, 64)


class FakeScene:
    """Random consistent labels of one image: blocks of classes on a slanted floor."""

    def __init__(self, seed: int, size: Size) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.image = self.rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        self.blocks = self.make_ids(5)
        rows = np.linspace(4, 2, size[0])[:, None]
        self.depth = (rows - 0.1 * self.blocks).astype(np.float32)
        self.depth[0, 0] = 0
        self.edge = np.zeros(size, np.uint8)
        self.edge[:, 1:] |= self.blocks[:, 1:] != self.blocks[:, :-1]
        self.normals = self.rng.normal([0, 0, -2], 0.5, (*size, 3))
        self.normals /= np.linalg.norm(self.normals, axis=-1, keepdims=True)
        self.normals[0, 0] = 0

    def make_ids(self, count: int, first: int = 0) -> Array:
        """Return a map of blocks with random ids from `first` to `first + count - 1`."""
        coarse = self.rng.integers(first, first + count, (3, 4)).astype(np.uint8)
        blocks: Array = cv2.resize(coarse, self.size[::-1], interpolation=cv2.INTER_NEAREST)
        return blocks

    def encode_normals(self, ignore_value: int = 128) -> Array:
        """Encode normals in 8 bits; ignored pixels are gray or black, depending on the archive."""
        levels = np.rint((self.normals + 1) * 127.5).astype(np.uint8)
        levels[0, 0] = ignore_value
        return levels


def write_image(file: Path, image: Array) -> None:
    """Write an image, (H, W) or RGB (H, W, 3), in the format of the file suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image[..., ::-1] if image.ndim == 3 else image)


def write_array(file: Path, values: Array) -> None:
    """Write a .npy file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, values)


def write_mat(file: Path, **variables: Any) -> None:
    """Write a .mat file of version 5."""
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, variables)


def write_split_lists(folder: Path, ids: list[str]) -> None:
    """Write train.txt with the first half of the ids and val.txt with the second half."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(ids) // 2
    for split, split_ids in (("train", ids[:half]), ("val", ids[half:])):
        (folder / f"{split}.txt").write_text("\n".join(split_ids) + "\n")


def _write_nyud(
    root: Path, count: int, size: Size, write: Callable[[Path, str, FakeScene], None]
) -> list[str]:
    ids = [f"{number:04d}" for number in range(1, count + 1)]
    for number, name in enumerate(ids):
        write(root, name, FakeScene(number, size))
    write_split_lists(root / "gt_sets", ids)
    return ids


def write_nyud_survey(root: Path, count: int = 4, size: Size = SIZE) -> list[str]:
    """Write NYUD_MT of the survey: JPEG, PNG and NumPy files."""

    def write(root: Path, name: str, scene: FakeScene) -> None:
        write_image(root / "images" / f"{name}.jpg", scene.image)
        write_image(root / "segmentation" / f"{name}.png", scene.make_ids(41))
        write_array(root / "depth" / f"{name}.npy", scene.depth)
        write_array(root / "normals" / f"{name}.npy", scene.normals.astype(np.float32))
        write_array(root / "edge" / f"{name}.npy", scene.edge.astype(np.float32))

    return _write_nyud(root, count, size, write)


def write_nyud_astmt(root: Path, count: int = 4, size: Size = SIZE) -> list[str]:
    """Write NYUD_MT of ASTMT: classes and depth in .mat files, normals as JPEG."""

    def write(root: Path, name: str, scene: FakeScene) -> None:
        write_image(root / "images" / f"{name}.jpg", scene.image)
        write_mat(root / "segmentation" / f"{name}.mat", segmentation=scene.make_ids(41))
        write_mat(root / "depth" / f"{name}.mat", depth=scene.depth)
        facing = np.tile(np.array([128, 128, 0], np.uint8), (*size, 1))
        write_image(root / "normals" / f"{name}.jpg", facing)
        write_image(root / "edge" / f"{name}.png", scene.edge * 255)

    return _write_nyud(root, count, size, write)


def write_nyud_atrc(root: Path, count: int = 4, size: Size = SIZE) -> list[str]:
    """Write NYUDv2 of ATRC: all files as PNG except depth."""

    def write(root: Path, name: str, scene: FakeScene) -> None:
        write_image(root / "images" / f"{name}.png", scene.image)
        write_image(root / "segmentation" / f"{name}.png", scene.make_ids(41))
        write_array(root / "depth" / f"{name}.npy", scene.depth)
        write_image(root / "normals" / f"{name}.png", scene.encode_normals())
        write_image(root / "edge" / f"{name}.png", scene.edge * 255)

    return _write_nyud(root, count, size, write)


def write_nyud_png_depth(root: Path, count: int = 4, size: Size = SIZE) -> list[str]:
    """Write the folders of the survey with 16-bit depth in mm; the last image has no normals."""

    def write(root: Path, name: str, scene: FakeScene) -> None:
        write_image(root / "images" / f"{name}.jpg", scene.image)
        write_image(root / "segmentation" / f"{name}.png", scene.make_ids(41))
        write_image(root / "depth" / f"{name}.png", np.rint(scene.depth * 1000).astype(np.uint16))
        write_image(root / "edge" / f"{name}.png", scene.edge * 255)
        if name != f"{count:04d}":
            write_image(root / "normals" / f"{name}.png", scene.encode_normals(ignore_value=0))

    return _write_nyud(root, count, size, write)


def write_nyud_mtan(
    root: Path, count: int = 4, size: Size = SIZE, *, channels_first: bool = False
) -> None:
    """Write NYUD-v2 of MTAN with 13 classes, as (H, W, C) or, if `channels_first`, (C, H, W)."""

    def to_layout(values: Array) -> Array:
        return np.moveaxis(values, -1, 0) if channels_first else values

    for number in range(count):
        scene = FakeScene(number, size)
        folder = root / ("train" if number < count // 2 else "val")
        name = f"{number % (count // 2)}.npy"
        write_array(folder / "image" / name, to_layout(scene.image / 255))
        write_array(folder / "label" / name, scene.make_ids(14).astype(np.float64) - 1)
        write_array(folder / "depth" / name, to_layout(scene.depth[..., None]))
        write_array(folder / "normal" / name, to_layout(scene.normals))


def write_nyud_raw(folder: Path, count: int = 4, size: Size = (480, 640)) -> tuple[Path, Path]:
    """Write nyu_depth_v2_labeled.mat, with axes in the order of MATLAB, and splits.mat."""
    import h5py

    scenes = [FakeScene(number, size) for number in range(count)]
    stacks = {
        "images": np.stack([scene.image for scene in scenes]),
        "depths": np.stack([np.maximum(scene.depth, 1) for scene in scenes]),
        "labels": np.stack([scene.make_ids(20).astype(np.uint16) for scene in scenes]),
        "instances": np.stack([scene.blocks for scene in scenes]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        for name, stack in stacks.items():
            file[name] = np.stack([np.transpose(values) for values in stack])
    half = count // 2
    numbers = np.arange(1, count + 1, dtype=np.uint16)[:, None]
    write_mat(folder / "splits.mat", trainNdxs=numbers[:half], testNdxs=numbers[half:])
    return folder / "nyu_depth_v2_labeled.mat", folder / "splits.mat"


def write_pascal_context(root: Path, count: int = 4, size: Size = SIZE) -> list[str]:
    """Write PASCAL_MT; the last image of each split shows no person."""
    ids = [f"2008_{number:06d}" for number in range(1, count + 1)]
    write_split_lists(root / "ImageSets" / "Context", ids)
    for number, name in enumerate(ids):
        scene = FakeScene(number, size)
        write_image(root / "JPEGImages" / f"{name}.jpg", scene.image)
        classes = scene.make_ids(21)
        classes[:3] = 255
        write_image(root / "semseg" / "VOC12" / f"{name}.png", classes)
        label_map = root / "pascal-context" / "trainval" / f"{name}.mat"
        write_mat(label_map, LabelMap=scene.make_ids(200).astype(np.uint16) + 200)
        write_image(root / "normals_distill" / f"{name}.png", scene.encode_normals())
        write_image(root / "sal_distill" / f"{name}.png", scene.make_ids(2) * 255)
        category = 8 if number % (count // 2) == count // 2 - 1 else 15
        write_mat(
            root / "human_parts" / f"{name}.mat", anno=make_part_annotation(name, scene, category)
        )
    return ids


def make_part_annotation(name: str, scene: FakeScene, category: int) -> dict[str, Any]:
    """Return the record of PASCAL-Part for an image with one object."""
    names = ["head", "neck", "luarm", "rhand", "ruleg", "lfoot"]
    parts = [
        {"part_name": part, "mask": (scene.blocks == index).astype(np.uint8)}
        for index, part in enumerate(names[: scene.blocks.max() + 1])
    ]
    record = {
        "class": "person" if category == 15 else "cat",
        "class_ind": float(category),
        "mask": (scene.blocks > 0).astype(np.uint8),
        "parts": _make_struct(parts),
    }
    return {"imname": name, "objects": _make_struct([record])}


def _make_struct(records: list[dict[str, Any]]) -> Array:
    """Return a 1xN MATLAB struct array of N records."""
    result = np.empty((1, len(records)), [(key, object) for key in records[0]])
    for column, record in enumerate(records):
        result[0, column] = tuple(record.values())
    return result


def write_pascal_ready_maps(root: Path, count: int = 4, size: Size = SIZE) -> list[str]:
    """Write PASCAL with edge/ and sal/ (128 is ignored) instead of LabelMaps and sal_distill/."""
    ids = [f"2008_{number:06d}" for number in range(1, count + 1)]
    write_split_lists(root / "ImageSets" / "Context", ids)
    for number, name in enumerate(ids):
        scene = FakeScene(number, size)
        write_image(root / "JPEGImages" / f"{name}.jpg", scene.image)
        write_image(root / "semseg" / "VOC12" / f"{name}.png", scene.make_ids(21))
        write_image(root / "edge" / f"{name}.png", scene.edge * 255)
        salient = np.array([0, 128, 255], np.uint8)[scene.make_ids(3)]
        write_image(root / "sal" / f"{name}.png", salient)
    return ids


def write_custom_folder(root: Path, count: int = 4, size: Size = SIZE) -> dict[str, Any]:
    """Write a custom folder of images and labels, and return the options that describe it."""
    ids = [f"shot{number}" for number in range(1, count + 1)]
    write_split_lists(root, ids)
    for number, name in enumerate(ids):
        scene = FakeScene(number, size)
        write_image(root / "images" / f"{name}.png", scene.image)
        write_image(root / "masks" / f"{name}_mask.png", scene.make_ids(4))
        write_image(root / "depth" / f"{name}.png", np.rint(scene.depth * 1000).astype(np.uint16))
        write_image(root / "water" / f"{name}.png", scene.make_ids(2))
        write_array(root / "flow" / f"{name}.npy", scene.normals[..., :2].astype(np.float32))
    return {
        "root": str(root),
        "images": "images",
        "splits": {"train": "train.txt", "val": "val.txt"},
        "labels": {
            "semseg": {
                "files": "masks/{id}_mask.png",
                "class_names": ["road", "car", "sky"],
                "first_class_id": 1,
                "ignore_values": [0],
            },
            "depth": {"files": "depth"},
            "water": {"files": "water", "kind": "binary"},
            "flow": {"files": "flow", "kind": "regression", "channels": 2},
        },
    }
