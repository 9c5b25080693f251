"""PASCAL-Context: VOC 2010 images with classes, body parts, edges, saliency and normals.

    PASCAL_MT (ASTMT, survey) and PASCALContext (ATRC)
      JPEGImages/ID.jpg
      ImageSets/Context/{train,val}.txt
      semseg/VOC12/ID.png, or else semseg/pascal-context/ID.png      0..20, 255 void
      pascal-context/trainval/ID.mat     LabelMap of 459 labels: edges, valid normals
      human_parts/ID.mat                 PASCAL-Part annotations
      normals_distill/ID.png, sal_distill/ID.png

Where there is no LabelMap, ready maps are taken from edge/ID.png; where there is no sal_distill,
saliency comes from sal/ID.png (255 object, 128 void).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from densemtl.io import arrays, label_formats
from densemtl.io.label_formats import CAMERA_AXES, AxisConvention
from densemtl.types import IGNORE_INDEX, Split

LABEL_MAP_FOLDER = Path("pascal-context", "trainval")

SPLIT_LIST_FOLDER = Path("ImageSets", "Context")

EDGE_DERIVATIONS: dict[Split, Callable[[NDArray[np.integer]], NDArray[np.uint8]]] = {
    "train": derived_labels.derive_laplacian_edges,
    "val": derived_labels.derive_region_edges,
}
"""How edges follow from a LabelMap: for training, and as the ground truth of the evaluation."""

SALIENCY_IGNORE_VALUES = (128,)


class PascalContextDataset(FileDataset):
    """A split of PASCAL-Context.

    Args:
        split: "train" or "val".
        tasks: of semseg, human_parts, edge, saliency, normals.
        root: the folder that holds JPEGImages/.
        train_split_name: the list ImageSets/Context/NAME.txt that is the training split.
        val_split_name: the same for validation.
        edge_val_split_name: the list ImageSets/Context/NAME.txt of the validation images whose
            edges are scored, of which there are 2498 in published results; by default all that have
            edges.
        derived_labels: a folder of edges and parts made by `datasets/prepare_pascal_context.py`;
            without it they are derived each time an image is read.
        normals_axes: the direction in which each stored channel of the normals grows.

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
        edge_val_split_name: str | None = None,
        derived_labels: Path | None = None,
        normals_axes: AxisConvention = CAMERA_AXES,
    ) -> None:
        self._root = root.expanduser()
        self._derived_labels = None if derived_labels is None else derived_labels.expanduser()
        self._normals_axes = normals_axes
        source = self._get_split_list(train_split_name if split == "train" else val_split_name)
        self._edge_split_list = (
            None if edge_val_split_name is None else self._get_split_list(edge_val_split_name)
        )
        if not source.parent.is_dir():
            looked = f"{SPLIT_LIST_FOLDER}/{source.name} and JPEGImages/"
            raise DataError(f"{root}: no PASCAL-Context here, looked for {looked}; set data.root")
        if self._derived_labels is not None and not self._derived_labels.is_dir():
            command = f"python datasets/prepare_pascal_context.py {root} --output {derived_labels}"
            raise DataError(
                f"{derived_labels}: no such cache; make it by `{command}`, or leave it out"
            )
        images = arrays.index_by_stem(self._root / "JPEGImages")
        super().__init__(split, tasks, arrays.read_split_list(source), images, source)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """The five tasks of Maninis et al. (2019)."""
        return {
            "semseg": {"class_names": list(CLASSES)},
            "human_parts": {"class_names": list(PARTS)},
            "edge": {"max_distance": EDGE_MAX_DISTANCE},
            "saliency": {},
            "normals": {},
        }

    def find_label_files(self, task: str) -> LabelFiles:
        """The files of a task, and how to read them."""
        sources: dict[str, Callable[[], LabelFiles]] = {
            "semseg": self._find_semseg_files,
            "human_parts": self._find_human_parts_files,
            "edge": self._find_edge_files,
            "saliency": self._find_saliency_files,
            "normals": self._find_normals_files,
        }
        return sources[task]()

    def list_sample_files(self, index: int) -> list[Path]:
        """Normals depend on the LabelMap besides."""
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
        scored = set(arrays.read_split_list(self._edge_split_list))
        lacking = scored.intersection(self.ids) - edge_files.keys()
        if lacking:
            count = f"{len(lacking)} of its {len(scored)} images"
            raise DataError(
                f"{self._edge_split_list}: {count} have no edges, such as {min(lacking)!r}"
            )
        scored_files = {name: file for name, file in edge_files.items() if name in scored}
        return LabelFiles(scored_files, read, self._edge_split_list)

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
    """HxW labels 0..459 of an image."""
    return arrays.read_array(file, "LabelMap")


_SEMSEG_ID_TO_CLASS = {
    IGNORE_INDEX: IGNORE_INDEX,
    **{label: label for label in range(len(CLASSES))},
}
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
    """Normals where the network that they come from knew the label; all of them without a map."""
    normals = label_formats.decode_normals(arrays.read_array(file), file, axes)
    label_map = label_map_folder / f"{file.stem}.mat"
    if label_map.exists():
        valid = np.isin(read_label_map(label_map), LABELS_WITH_NORMALS)
        if valid.shape != normals.shape[:2]:
            raise DataError(f"{label_map}: its LabelMap is of another size than {file}")
        normals[~valid] = np.nan
    return normals
