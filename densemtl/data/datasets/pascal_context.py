"""PASCAL-Context: VOC 2010 images with classes, body parts, edges, saliency and normals.

    PASCAL_MT (ASTMT, survey) and PASCALContext (ATRC)
      JPEGImages/ID.jpg
      ImageSets/Context/{train,val}.txt
      semseg/VOC12/ID.png, or else semseg/pascal-context/ID.png      0..20, 255 ignored
      pascal-context/trainval/ID.mat     LabelMap of 459 labels: edges, valid normals
      human_parts/ID.mat                 PASCAL-Part annotations
      normals_distill/ID.png, sal_distill/ID.png

Without LabelMaps, edges are read from edge/ID.png; without sal_distill/, saliency is read from
sal/ID.png (255 object, 128 ignored).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.config.constraints import UserPath
from densemtl.data import derived_labels
from densemtl.data.datasets.pascal_context_metadata import (
    CLASSES,
    EDGE_MAX_DISTANCE,
    LABELS_WITH_NORMALS,
    PARTS,
)
from densemtl.data.datasets.pascal_context_parts import has_parts, read_human_parts
from densemtl.data.file_dataset import FileDataset, LabelFiles
from densemtl.errors import DataError
from densemtl.io import arrays, label_formats, vector_formats
from densemtl.io.paths import require_folder
from densemtl.io.vector_formats import CAMERA_AXES, AxisConvention
from densemtl.types import IGNORE_INDEX, Split

LABEL_MAP_FOLDER = Path("pascal-context", "trainval")

SPLIT_LIST_FOLDER = Path("ImageSets", "Context")

EDGE_DERIVATIONS: dict[Split, Callable[[NDArray[np.integer]], NDArray[np.uint8]]] = {
    "train": derived_labels.derive_laplacian_edges,
    "val": derived_labels.derive_region_edges,
}
"""Functions that derive edges from a LabelMap: for training and for evaluation."""

SALIENCY_IGNORE_VALUES = (128,)


class PascalContextDataset(FileDataset):
    """Split of PASCAL-Context.

    Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the
    Wild", CVPR 2014, with the five tasks of Maninis et al., "Attentive Single-Tasking of Multiple
    Tasks", CVPR 2019.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read: semseg, human_parts, edge, saliency,
            normals.
        root: folder that contains JPEGImages/.
        train_split_name: name of the list ImageSets/Context/NAME.txt of the training split.
        val_split_name: name of the list of the validation split, likewise.
        edge_val_split_name: name of the list of the validation images whose edges are evaluated
            (2498 images in published results); by default all images with edges.
        derived_labels: folder of edges and parts from `densemtl prepare_pascal_context`; without
            it, they are derived each time an image is read.
        normals_axes: direction in which each stored channel of the normals increases.

    Raises:
        DataError: if no PASCAL-Context is found in `root`, or if files are missing.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        root: UserPath,
        train_split_name: str = "train",
        val_split_name: str = "val",
        edge_val_split_name: str | None = None,
        derived_labels: UserPath | None = None,
        normals_axes: AxisConvention = CAMERA_AXES,
    ) -> None:
        require_folder(root, "data.root")
        self._root, self._derived_labels = root, derived_labels
        self._normals_axes = normals_axes
        source = self._get_split_list(train_split_name if split == "train" else val_split_name)
        self._edge_split_list = (
            None if edge_val_split_name is None else self._get_split_list(edge_val_split_name)
        )
        if not source.parent.is_dir():
            expected = f"{SPLIT_LIST_FOLDER}/{source.name} and JPEGImages/"
            raise DataError(
                f"{root}: no PASCAL-Context here, expected {expected}; set"
                " data.root=/path/to/PASCAL_MT"
            )
        if self._derived_labels is not None and not self._derived_labels.is_dir():
            command = f"densemtl prepare_pascal_context {root} --output {derived_labels}"
            raise DataError(
                f"{derived_labels}: no such folder; create it by `{command}`, or remove"
                " data.derived_labels"
            )
        images = arrays.index_by_stem(self._root / "JPEGImages")
        super().__init__(split, tasks, arrays.read_split_list(source), images, source)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Return the options of the five tasks of Maninis et al., CVPR 2019.

        Args:
            **options: the options of the dataset, which are not read.

        Returns:
            {task name: {option: default value}}.
        """
        return {
            "semseg": {"class_names": list(CLASSES)},
            "human_parts": {"class_names": list(PARTS)},
            "edge": {"max_distance": EDGE_MAX_DISTANCE},
            "saliency": {},
            "normals": {},
        }

    def find_label_files(self, task: str) -> LabelFiles:
        """Find the label files of a task, including derived labels.

        Args:
            task: name of the task.

        Returns:
            The files and the function that reads them.

        Raises:
            DataError: if images in the list of evaluated edges have no edges.
        """
        sources: dict[str, Callable[[], LabelFiles]] = {
            "semseg": self._find_semseg_files,
            "human_parts": self._find_human_parts_files,
            "edge": self._find_edge_files,
            "saliency": self._find_saliency_files,
            "normals": self._find_normals_files,
        }
        return sources[task]()

    def list_sample_files(self, index: int) -> list[Path]:
        """List the files of a sample and its LabelMap, which the valid normals depend on."""
        return [
            *super().list_sample_files(index),
            self._root / LABEL_MAP_FOLDER / f"{self.ids[index]}.mat",
        ]

    def _find_semseg_files(self) -> LabelFiles:
        folder = self._root / "semseg"
        files = arrays.index_by_stem(folder / "pascal-context") | arrays.index_by_stem(
            folder / "VOC12"
        )
        return LabelFiles(files, _read_semseg, folder)

    def _find_human_parts_files(self) -> LabelFiles:
        folder = self._root / "human_parts"
        return LabelFiles(
            arrays.index_by_stem(folder) | self._index_derived_labels("human_parts"),
            _read_human_parts,
            folder,
        )

    def _find_edge_files(self) -> LabelFiles:
        maps = arrays.index_by_stem(self._root / LABEL_MAP_FOLDER) or arrays.index_by_stem(
            self._root / "edge"
        )
        edge_files = maps | self._index_derived_labels(f"edge_{self.split}")
        read = partial(_read_edge, derive_edges=EDGE_DERIVATIONS[self.split])
        if self.split == "train" or self._edge_split_list is None:
            return LabelFiles(edge_files, read, self._root / LABEL_MAP_FOLDER)
        evaluated = set(arrays.read_split_list(self._edge_split_list))
        missing = evaluated.intersection(self.ids) - edge_files.keys()
        if missing:
            count = f"{len(missing)} of its {len(evaluated)} images"
            raise DataError(
                f"{self._edge_split_list}: {count} have no edges, the first is {min(missing)!r}"
            )
        evaluated_files = {name: file for name, file in edge_files.items() if name in evaluated}
        return LabelFiles(evaluated_files, read, self._edge_split_list)

    def _find_saliency_files(self) -> LabelFiles:
        distilled = arrays.index_by_stem(self._root / "sal_distill")
        if distilled:
            return LabelFiles(distilled, _read_saliency, self._root / "sal_distill")
        derived = arrays.index_by_stem(self._root / "sal")
        read = partial(_read_saliency, ignore_values=SALIENCY_IGNORE_VALUES)
        return LabelFiles(derived, read, self._root / "sal_distill")

    def _find_normals_files(self) -> LabelFiles:
        folder = self._root / "normals_distill"
        maps = self._root / LABEL_MAP_FOLDER
        return LabelFiles(
            arrays.index_by_stem(folder),
            partial(_read_normals, axes=self._normals_axes, label_map_folder=maps),
            folder,
        )

    def _get_split_list(self, name: str) -> Path:
        return self._root / SPLIT_LIST_FOLDER / f"{name}.txt"

    def _index_derived_labels(self, name: str) -> dict[str, Path]:
        return (
            {}
            if self._derived_labels is None
            else arrays.index_by_stem(self._derived_labels / name)
        )


def read_label_map(file: Path) -> NDArray[np.integer]:
    """Read the LabelMap of an image.

    Args:
        file: .mat file with the variable `LabelMap`.

    Returns:
        Labels 0..459, shape (H, W).

    Raises:
        DataError: if the file is missing or corrupt.
    """
    return arrays.read_array(file, "LabelMap")


_SEMSEG_ID_TO_CLASS = {
    IGNORE_INDEX: IGNORE_INDEX,
    **{label: label for label in range(len(CLASSES))},
}
_NAN_WITHOUT_NORMALS = np.full(max(LABELS_WITH_NORMALS) + 2, np.nan, np.float32)
"""For each label of a LabelMap, 0 if its normals are valid, else NaN; the last entry is for all
higher labels."""
_NAN_WITHOUT_NORMALS[list(LABELS_WITH_NORMALS)] = 0
_PART_ID_TO_CLASS = {IGNORE_INDEX: IGNORE_INDEX, **{part: part for part in range(len(PARTS))}}


def _read_semseg(file: Path) -> NDArray[np.uint8]:
    return label_formats.decode_classes(arrays.read_array(file), _SEMSEG_ID_TO_CLASS, file)


def _read_human_parts(file: Path) -> NDArray[np.uint8] | None:
    if file.suffix == ".mat":
        return read_human_parts(file)
    parts = label_formats.decode_classes(arrays.read_array(file), _PART_ID_TO_CLASS, file)
    return parts if has_parts(parts) else None


def _read_edge(
    file: Path, derive_edges: Callable[[NDArray[np.integer]], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    if file.suffix == ".mat":
        return derive_edges(read_label_map(file))
    return label_formats.decode_binary(arrays.read_array(file), file, max_value=255)


def _read_saliency(file: Path, ignore_values: Sequence[int] = ()) -> NDArray[np.uint8]:
    return label_formats.decode_binary(
        arrays.read_array(file), file, max_value=255, ignore_values=ignore_values
    )


def _read_normals(file: Path, axes: AxisConvention, label_map_folder: Path) -> NDArray[np.float32]:
    """Read normals and invalidate pixels whose label the distilled network has not seen.

    Without a LabelMap, all pixels are valid.
    """
    normals = vector_formats.decode_normals(arrays.read_array(file), file, axes)
    label_map = label_map_folder / f"{file.stem}.mat"
    if label_map.exists():
        labels = read_label_map(label_map)
        if labels.shape != normals.shape[:2]:
            raise DataError(f"{label_map}: the LabelMap has another size than {file}")
        # Adding NaN is faster than assigning it to the pixels of a mask.
        invalid = np.take(_NAN_WITHOUT_NORMALS, labels, mode="clip")
        normals += cv2.merge([invalid] * 3)
    return normals
