"""Tiny fakes of the public datasets in configs/folder, in the layouts that their files describe.

Each writer writes two images per split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.helpers.fake_datasets import (
    SIZE,
    Array,
    FakeScene,
    write_array,
    write_image,
    write_nyud_mtan,
)

SPLITS = ("train", "val")
FOCAL_TIMES_BASELINE = 0.209313 * 2262.52
"""Of Cityscapes, in meters times pixels."""


def spread_ids(ids: Sequence[int]) -> Array:
    """Return a map in which all ids occur."""
    return np.resize(np.array(ids), SIZE)


def write_cityscapes(root: Path) -> None:
    for number, split in enumerate(SPLITS * 2):
        scene, city = FakeScene(number, SIZE), "aachen" if split == "train" else "munster"
        name = f"{city}/{city}_00000{number}_000019"
        write_image(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", scene.image)
        ids = spread_ids(range(34)).astype(np.uint8)
        write_image(root / "gtFine" / split / f"{name}_gtFine_labelIds.png", ids)
        meters = np.where(scene.depth > 0, 10 * scene.depth, np.inf)
        stored = np.rint(256 * FOCAL_TIMES_BASELINE / meters + 1).astype(np.uint16)
        stored[0, 0] = 0
        write_image(root / "disparity" / split / f"{name}_disparity.png", stored)


def write_cityscapes_mtan(root: Path) -> None:
    for number, split in enumerate(SPLITS * 2):
        scene, name = FakeScene(number, SIZE), f"{number // 2}.npy"
        write_array(root / split / "image" / name, scene.image / 255)
        ids = spread_ids(range(-1, 7)).astype(np.float64)
        write_array(root / split / "label_7" / name, ids)
        write_array(root / split / "depth" / name, scene.depth[..., None] / 10)


def write_sunrgbd(root: Path) -> None:
    for split, numbers in (("train", (5051, 5052)), ("val", (1, 2))):
        names = [f"img-{number:06d}" for number in numbers]
        for number, name in zip(numbers, names, strict=True):
            scene = FakeScene(number, SIZE)
            write_image(root / "images" / f"{name}.jpg", scene.image)
            ids = spread_ids(range(38)).astype(np.uint8)
            write_image(root / "labels" / f"{name}.png", ids)
        (root / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")


def write_scannet(root: Path) -> None:
    for number, split in enumerate(SPLITS):
        folder = root / "scannet_frames_25k" / f"scene000{number}_00"
        for frame in ("000000", "000100"):
            scene = FakeScene(number + int(frame), SIZE)
            write_image(folder / "color" / f"{frame}.jpg", scene.image)
            ids = spread_ids(range(41)).astype(np.uint8)
            write_image(folder / "label" / f"{frame}.png", ids)
            small = cv2.resize(scene.depth, (32, 24), interpolation=cv2.INTER_NEAREST)
            write_image(folder / "depth" / f"{frame}.png", (1000 * small).astype(np.uint16))
        text = f"scene000{number}_00\n"
        (root / f"scannetv2_{split}.txt").write_text(text, encoding="utf-8")


def write_taskonomy(root: Path) -> None:
    for split, building in zip(SPLITS, ("allensville", "beechwood"), strict=True):
        for number in range(2):
            scene, view = FakeScene(number, SIZE), f"point_{number}_view_0_domain"
            depth = np.where(scene.depth > 0, 512 * scene.depth, 65535).astype(np.uint16)
            maps = {
                "rgb": ("rgb", scene.image),
                "depth_zbuffer": ("depth_zbuffer", depth),
                "segment_semantic": (
                    "segmentsemantic",
                    spread_ids(range(18)).astype(np.uint8),
                ),
                "edge_texture": ("edge_texture", scene.edge.astype(np.uint16) * 65535),
            }
            for folder, (suffix, array) in maps.items():
                file = root / folder / "taskonomy" / building / f"{view}_{suffix}.png"
                write_image(file, array)
        (root / f"{split}.txt").write_text(f"{building}\n", encoding="utf-8")


def write_ade20k(root: Path) -> None:
    for split, prefix in (("training", "ADE_train"), ("validation", "ADE_val")):
        for number in range(1, 3):
            scene, name = FakeScene(number, SIZE), f"{prefix}_{number:08d}"
            write_image(root / "images" / split / f"{name}.jpg", scene.image)
            ids = spread_ids(range(151)).astype(np.uint8)
            write_image(root / "annotations" / split / f"{name}.png", ids)


ARCHIVES: dict[str, Callable[[Path], None]] = {
    "ade20k": write_ade20k,
    "cityscapes": write_cityscapes,
    "cityscapes_mtan": write_cityscapes_mtan,
    "nyuv2_mtan": write_nyud_mtan,
    "scannet": write_scannet,
    "sunrgbd": write_sunrgbd,
    "taskonomy": write_taskonomy,
}
"""{name of a configuration in configs/folder: function that writes a fake of its dataset}."""
