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

from densemtl.io import arrays
from densemtl.io import label_formats
from densemtl.data.base import Split
from densemtl.data.file_dataset import DiskDataset, Labels
from densemtl.io.label_formats import CAMERA_AXES, Axes
from densemtl.data.datasets.nyud_metadata import CLASSES_13, CLASSES_40, EDGE_DISTANCE, TO_13
from densemtl.errors import DataError
from densemtl.types import VOID

SURVEY = {
    "image": "images",
    "semseg": "segmentation",
    "depth": "depth",
    "normals": "normals",
    "edge": "edge",
}

MTAN = {**SURVEY, "image": "image", "semseg": "label", "normals": "normal"}


class NYUD(DiskDataset):
    """A split of NYUD-v2.

    Args:
        split: "train" or "val".
        tasks: of semseg, depth, normals, edge.
        root: the folder that holds gt_sets/ (or train/ and val/ of MTAN's set).
        train_list: the list gt_sets/NAME.txt (or folder) that is the training split.
        val_list: the same for validation.
        classes: 40, or 13 as MTAN; 13 can be had from 40, not the other way.
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
        train_list: str = "train",
        val_list: str = "val",
        classes: Literal[40, 13] = 40,
        derived_normals: Path | None = None,
        normals_axes: Axes = CAMERA_AXES,
    ) -> None:
        self._classes, self._derived, self._axes = classes, derived_normals, normals_axes
        name = train_list if split == "train" else val_list
        root = root.expanduser()
        self._mtan = (root / name / "image").is_dir()
        self._base = root / name if self._mtan else root
        self._folders = MTAN if self._mtan else SURVEY
        images = arrays.index(self._base / self._folders["image"])
        source = self._base / "image" if self._mtan else root / "gt_sets" / f"{name}.txt"
        ids = _numbered(images, source) if self._mtan else _listed(root, source)
        super().__init__(split, tasks, ids, images, source)

    @classmethod
    def offers(cls, *, classes: Literal[40, 13] = 40, **options: Any) -> dict[str, dict[str, Any]]:
        """Semseg of 40 or 13 classes, depth, normals, edge as it is published."""
        names = list(CLASSES_40 if classes == 40 else CLASSES_13)
        edge = {"max_distance": EDGE_DISTANCE, "regions_under": ["modern"]}
        return {"semseg": {"class_names": names}, "depth": {}, "normals": {}, "edge": edge}

    def labels(self, task: str) -> Labels:
        """The files in a task's folder, and how to read them."""
        folder = self._base / self._folders[task]
        found = arrays.index(folder)
        if task == "normals" and self._derived is not None and self.split == "train":
            return self._with_derived(found, folder, self._derived.expanduser())
        return Labels(found, self._reader(task), folder)

    def _reader(self, task: str) -> Callable[[Path], NDArray[np.generic]]:
        readers: dict[str, Callable[[Path], NDArray[np.generic]]] = {
            "semseg": partial(_read_classes, classes=self._class_table()),
            "depth": read_depth,
            "normals": partial(read_normals, axes=self._axes),
            "edge": _read_edge,
        }
        return readers[task]

    def _class_table(self) -> dict[int, int]:
        """{stored id: class, or void}."""
        if self._mtan:
            if self._classes != 13:
                raise DataError(f"{self._base}: MTAN's set has 13 classes; set data.classes=13")
            return {-1: VOID, **{label: label for label in range(13)}}
        classes = [label - 1 for label in TO_13] if self._classes == 13 else range(40)
        return {0: VOID, **dict(enumerate(classes, start=1))}

    def _with_derived(self, given: dict[str, Path], folder: Path, derived: Path) -> Labels:
        own = arrays.index(derived)
        if not own:
            command = f"python datasets/prepare_nyud.py normals {self._base} --output {derived}"
            raise DataError(f"{derived}: no derived normals here; make them by `{command}`")
        read_given = self._reader("normals")
        read = partial(_read_either, given=folder, read_given=read_given, read_other=read_normals)
        return Labels({**own, **given}, read, folder)


def _listed(root: Path, source: Path) -> list[str]:
    if not source.parent.is_dir():
        looked = f"gt_sets/{source.name} (survey, ASTMT, ATRC) or {source.stem}/image (MTAN)"
        raise DataError(f"{root}: no NYUD-v2 here, looked for {looked}; set data.root")
    return arrays.read_ids(source)


def _numbered(images: dict[str, Path], folder: Path) -> list[str]:
    if not images:
        raise DataError(f"{folder}: no images here; fetch MTAN's set again, or set data.root")
    return sorted(images, key=lambda name: (len(name), name))


def _read_classes(file: Path, classes: dict[int, int]) -> NDArray[np.uint8]:
    return label_formats.to_classes(arrays.read_array(file, "segmentation"), classes, file)


def read_depth(file: Path) -> NDArray[np.float32]:
    """HxW metres, NaN where unknown; see `labels.to_depth`."""
    return label_formats.to_depth(arrays.read_array(file, "depth"), file)


def read_normals(file: Path, axes: Axes = CAMERA_AXES) -> NDArray[np.float32]:
    """HxWx3 in camera axes, NaN where invalid; see `labels.to_normals`."""
    return label_formats.to_normals(arrays.read_array(file, "normals"), file, axes)


def _read_edge(file: Path) -> NDArray[np.uint8]:
    full = 255 if file.suffix in arrays.PICTURES else None
    return label_formats.to_binary(arrays.read_array(file, "edge"), file, full=full)


def _read_either(
    file: Path,
    given: Path,
    read_given: Callable[[Path], NDArray[np.generic]],
    read_other: Callable[[Path], NDArray[np.generic]],
) -> NDArray[np.generic]:
    """Normals in their own axes, or derived ones in camera axes, by the folder they lie in."""
    return read_given(file) if file.parent == given else read_other(file)
