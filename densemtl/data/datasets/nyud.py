"""NYUD-v2: 1449 indoor images with classes, depth, normals and edges (Silberman et al., ECCV 2012).

    survey, ASTMT, ATRC                             MTAN (13 classes)
      images/ID.{jpg,png}                             train|val/
      segmentation/ID.{png,mat}   0 ignored, 1..40      image/N.npy    0..1
      depth/ID.{npy,png,mat}      meters, or mm         label/N.npy    -1 ignored, 0..12
      normals/ID.{npy,png,jpg}                          depth/N.npy    meters
      edge/ID.{npy,png}                                 normal/N.npy
      gt_sets/{train,val}.txt

The layout and the file types are detected: the files of each folder may have any supported type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densemtl.config.constraints import UserPath
from densemtl.data.datasets.nyud_metadata import (
    CLASS_40_TO_13,
    CLASSES_13,
    CLASSES_40,
    EDGE_MAX_DISTANCE,
)
from densemtl.data.file_dataset import FileDataset, LabelFiles
from densemtl.errors import DataError
from densemtl.io import arrays, label_formats, number_formats, vector_formats
from densemtl.io.media import IMAGE_SUFFIXES
from densemtl.io.paths import describe_content, require_folder
from densemtl.io.vector_formats import CAMERA_AXES, AxisConvention
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
    """Split of NYUD-v2.

    Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012, in
    the layouts of the survey (Vandenhende et al. 2021), ASTMT (Maninis et al. 2019), ATRC
    (Brüggemann et al. 2021) and MTAN (Liu et al. 2019).

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read: semseg, depth, normals, edge.
        root: folder that contains gt_sets/, or train/ and val/ of MTAN's layout.
        train_split_name: name of the training split: of the list gt_sets/NAME.txt, or of the folder
            of MTAN's layout.
        val_split_name: name of the validation split, likewise.
        num_classes: 40, or 13 as MTAN uses. 40 stored classes are mapped to 13, but not vice versa.
        derived_normals: folder of normals derived from depth by `densemtl prepare_nyud normals`,
            for training images without normals; not used for validation.
        normals_axes: direction in which each channel of the given normals increases, for example
            [left, up, forward]; derived normals are always in camera axes.

    Raises:
        DataError: if no layout is found in `root`, or if files are missing.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        root: UserPath,
        train_split_name: str = "train",
        val_split_name: str = "val",
        num_classes: Literal[40, 13] = 40,
        derived_normals: UserPath | None = None,
        normals_axes: AxisConvention = CAMERA_AXES,
    ) -> None:
        self._num_classes, self._derived_normals, self._normals_axes = (
            num_classes,
            derived_normals,
            normals_axes,
        )
        require_folder(root, "data.root")
        name = train_split_name if split == "train" else val_split_name
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
        """Return the options of semseg, depth, normals and edge.

        Args:
            num_classes: number of classes of semseg, 40 or 13.
            **options: the other options of the dataset, which are not read.

        Returns:
            {task name: {option: default value}}.
        """
        names = list(CLASSES_40 if num_classes == 40 else CLASSES_13)
        edge = {"max_distance": EDGE_MAX_DISTANCE, "region_label_protocols": ["modern"]}
        return {"semseg": {"class_names": names}, "depth": {}, "normals": {}, "edge": edge}

    def find_label_files(self, task: str) -> LabelFiles:
        """Find the files in the folder of a task, and those of derived normals.

        Args:
            task: name of the task.

        Returns:
            The files and the function that reads them.

        Raises:
            DataError: if there are no derived normals, or the number of classes is not that of the
                dataset.
        """
        folder = self._split_root / self._folders[task]
        files = arrays.index_by_stem(folder)
        if task == "normals" and self._derived_normals is not None and self.split == "train":
            return self._add_derived_normals(files, folder, self._derived_normals)
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
        """Return {stored id: class, or the ignore index}."""
        if self._is_mtan_layout:
            if self._num_classes != 13:
                raise DataError(
                    f"{self._split_root}: MTAN's dataset has 13 classes; set data.num_classes=13"
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
                f"{derived_folder}: no derived normals here; create them by"
                f" `densemtl prepare_nyud normals {self._split_root} --output {derived_folder}`"
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
        expected = (
            f"gt_sets/{split_list.name} (survey, ASTMT, ATRC) or {split_list.stem}/image (MTAN)"
        )
        raise DataError(
            f"{root}: no NYUD-v2 here, expected {expected}; set data.root=/path/to/NYUD_MT"
        )
    return arrays.read_split_list(split_list)


def _sort_ids_of_files(image_files: dict[str, Path], folder: Path) -> list[str]:
    if not image_files:
        raise DataError(
            f"{folder}: no images here (it {describe_content(folder)}); download MTAN's dataset"
            " again, or set data.root"
        )
    return sorted(image_files, key=lambda name: (len(name), name))


def _read_classes(file: Path, id_to_class: dict[int, int]) -> NDArray[np.uint8]:
    return label_formats.decode_classes(arrays.read_array(file, "segmentation"), id_to_class, file)


def read_depth(file: Path) -> NDArray[np.float32]:
    """Read a depth map; see `densemtl.io.number_formats.decode_depth`.

    Args:
        file: .npy, .png or .mat file with the variable `depth`.

    Returns:
        Depth in meters, shape (H, W), NaN where unknown.

    Raises:
        DataError: if the file is missing or corrupt, or a value is invalid.
    """
    return number_formats.decode_depth(arrays.read_array(file, "depth"), file)


def read_normals(file: Path, axes: AxisConvention = CAMERA_AXES) -> NDArray[np.float32]:
    """Read a map of normals; see `densemtl.io.vector_formats.decode_normals`.

    Args:
        file: .npy, .png, .jpg or .mat file with the variable `normals`.
        axes: direction in which each stored channel increases.

    Returns:
        Unit vectors in camera axes, shape (H, W, 3), NaN where invalid.

    Raises:
        DataError: if the file is missing or corrupt, or a value is invalid.
    """
    return vector_formats.decode_normals(arrays.read_array(file, "normals"), file, axes)


def _read_edge(file: Path) -> NDArray[np.uint8]:
    max_value = 255 if file.suffix in IMAGE_SUFFIXES else None
    return label_formats.decode_binary(arrays.read_array(file, "edge"), file, max_value=max_value)


def _read_given_or_derived(
    file: Path,
    given_folder: Path,
    read_given: Callable[[Path], NDArray[np.generic]],
    read_derived: Callable[[Path], NDArray[np.generic]],
) -> NDArray[np.generic]:
    """Read given normals or derived normals, depending on the folder of the file."""
    return read_given(file) if file.parent == given_folder else read_derived(file)
