"""NYUD-v2: 1449 indoor frames with classes, depth, normals and edges, in any archive's layout.

    survey, ASTMT, ATRC                          MTAN (13 classes)
      images/ID.{jpg,png}                          train|val/
      segmentation/ID.{png,mat}   0 void, 1..40      image/N.npy    0..1
      depth/ID.{npy,png,mat}      metres, or mm      label/N.npy    -1 void, 0..12
      normals/ID.{npy,png,jpg}                       depth/N.npy    metres
      edge/ID.{npy,png}                              normal/N.npy
      gt_sets/{train,val}.txt

What lies in a folder decides how it is read: each modality may be of any file type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.nyud_metadata import (
    CLASS_40_TO_13,
    CLASSES_13,
    CLASSES_40,
    EDGE_MAX_DISTANCE,
)
from densemtl.data.file_dataset import FileDataset, LabelFiles
from densemtl.errors import DataError
from densemtl.io import arrays, label_formats
from densemtl.io.label_formats import CAMERA_AXES, AxisConvention
from densemtl.types import IGNORE_INDEX, Split

SURVEY_FOLDERS = {
    "image": "images",
    "semseg": "segmentation",
    "depth": "depth",
    "normals": "normals",
    "edge": "edge",
}

MTAN_FOLDERS = {**SURVEY_FOLDERS, "image": "image", "semseg": "label", "normals": "normal"}


class NYUDDataset(FileDataset):
    """A split of NYUD-v2.

    Args:
        split: "train" or "val".
        tasks: of semseg, depth, normals, edge.
        root: the folder that holds gt_sets/ (or train/ and val/ of MTAN's set).
        train_split_name: the list gt_sets/NAME.txt (or folder) that is the training split.
        val_split_name: the same for validation.
        num_classes: 40, or 13 as MTAN; 13 can be had from 40, not the other way.
        derived_normals: a folder of normals derived from depth (`datasets/prepare_nyud.py
            normals`), for training frames that have none; never used for validation.
        normals_axes: the direction in which each stored channel of the given normals grows,
            such as [left, up, forward]; derived normals are always in camera axes.

    Raises:
        DataError: no such layout at `root`, or files that are missing.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        root: Path,
        train_split_name: str = "train",
        val_split_name: str = "val",
        num_classes: Literal[40, 13] = 40,
        derived_normals: Path | None = None,
        normals_axes: AxisConvention = CAMERA_AXES,
    ) -> None:
        self._num_classes, self._derived_normals, self._normals_axes = (
            num_classes,
            derived_normals,
            normals_axes,
        )
        name = train_split_name if split == "train" else val_split_name
        root = root.expanduser()
        self._is_mtan_layout = (root / name / "image").is_dir()
        self._split_root = root / name if self._is_mtan_layout else root
        self._folders = MTAN_FOLDERS if self._is_mtan_layout else SURVEY_FOLDERS
        images = arrays.index_by_stem(self._split_root / self._folders["image"])
        source = (
            self._split_root / "image" if self._is_mtan_layout else root / "gt_sets" / f"{name}.txt"
        )
        ids = (
            _sort_ids_of_files(images, source)
            if self._is_mtan_layout
            else _read_ids_from_list(root, source)
        )
        super().__init__(split, tasks, ids, images, source)

    @classmethod
    def task_defaults(
        cls, *, num_classes: Literal[40, 13] = 40, **options: Any
    ) -> dict[str, dict[str, Any]]:
        """Semseg of 40 or 13 classes, depth, normals, edge as it is published."""
        names = list(CLASSES_40 if num_classes == 40 else CLASSES_13)
        edge = {"max_distance": EDGE_MAX_DISTANCE, "region_label_protocols": ["modern"]}
        return {"semseg": {"class_names": names}, "depth": {}, "normals": {}, "edge": edge}

    def find_label_files(self, task: str) -> LabelFiles:
        """The files in a task's folder, and how to read them."""
        folder = self._split_root / self._folders[task]
        files = arrays.index_by_stem(folder)
        if task == "normals" and self._derived_normals is not None and self.split == "train":
            return self._add_derived_normals(files, folder, self._derived_normals.expanduser())
        return LabelFiles(files, self._make_reader(task), folder)

    def _make_reader(self, task: str) -> Callable[[Path], NDArray[np.generic]]:
        readers: dict[str, Callable[[Path], NDArray[np.generic]]] = {
            "semseg": partial(_read_classes, id_to_class=self._make_id_to_class()),
            "depth": read_depth,
            "normals": partial(read_normals, axes=self._normals_axes),
            "edge": _read_edge,
        }
        return readers[task]

    def _make_id_to_class(self) -> dict[int, int]:
        """{stored id: class, or void}."""
        if self._is_mtan_layout:
            if self._num_classes != 13:
                raise DataError(
                    f"{self._split_root}: MTAN's set has 13 classes; set data.num_classes=13"
                )
            return {-1: IGNORE_INDEX, **{label: label for label in range(13)}}
        classes = [label - 1 for label in CLASS_40_TO_13] if self._num_classes == 13 else range(40)
        return {0: IGNORE_INDEX, **dict(enumerate(classes, start=1))}

    def _add_derived_normals(
        self, given_files: dict[str, Path], folder: Path, derived_folder: Path
    ) -> LabelFiles:
        derived_files = arrays.index_by_stem(derived_folder)
        if not derived_files:
            raise DataError(
                f"{derived_folder}: no derived normals here; make them by `python"
                f" datasets/prepare_nyud.py normals {self._split_root} --output {derived_folder}`"
            )
        read_given = self._make_reader("normals")
        read = partial(
            _read_given_or_derived,
            given_folder=folder,
            read_given=read_given,
            read_derived=read_normals,
        )
        return LabelFiles({**derived_files, **given_files}, read, folder)


def _read_ids_from_list(root: Path, split_list: Path) -> list[str]:
    if not split_list.parent.is_dir():
        looked = (
            f"gt_sets/{split_list.name} (survey, ASTMT, ATRC) or {split_list.stem}/image (MTAN)"
        )
        raise DataError(f"{root}: no NYUD-v2 here, looked for {looked}; set data.root")
    return arrays.read_split_list(split_list)


def _sort_ids_of_files(image_files: dict[str, Path], folder: Path) -> list[str]:
    if not image_files:
        raise DataError(f"{folder}: no images here; fetch MTAN's set again, or set data.root")
    return sorted(image_files, key=lambda name: (len(name), name))


def _read_classes(file: Path, id_to_class: dict[int, int]) -> NDArray[np.uint8]:
    return label_formats.decode_classes(arrays.read_array(file, "segmentation"), id_to_class, file)


def read_depth(file: Path) -> NDArray[np.float32]:
    """HxW metres, NaN where unknown; see `label_formats.decode_depth`."""
    return label_formats.decode_depth(arrays.read_array(file, "depth"), file)


def read_normals(file: Path, axes: AxisConvention = CAMERA_AXES) -> NDArray[np.float32]:
    """HxWx3 in camera axes, NaN where invalid; see `label_formats.decode_normals`."""
    return label_formats.decode_normals(arrays.read_array(file, "normals"), file, axes)


def _read_edge(file: Path) -> NDArray[np.uint8]:
    full = 255 if file.suffix in arrays.IMAGE_SUFFIXES else None
    return label_formats.decode_binary(arrays.read_array(file, "edge"), file, max_value=full)


def _read_given_or_derived(
    file: Path,
    given_folder: Path,
    read_given: Callable[[Path], NDArray[np.generic]],
    read_derived: Callable[[Path], NDArray[np.generic]],
) -> NDArray[np.generic]:
    """Normals in their own axes, or derived ones in camera axes, by the folder they lie in."""
    return read_given(file) if file.parent == given_folder else read_derived(file)
