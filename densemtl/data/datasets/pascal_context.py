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
from densemtl.io import arrays
from densemtl.io import label_formats
from densemtl.data.base import Split
from densemtl.data.file_dataset import DiskDataset, Labels
from densemtl.io.label_formats import CAMERA_AXES, Axes
from densemtl.data.datasets.pascal_context_metadata import CLASSES, EDGE_DISTANCE, LABELS_WITH_NORMALS, PARTS
from densemtl.data.datasets.pascal_context_parts import read_parts, shows_a_part
from densemtl.errors import DataError
from densemtl.types import VOID

LABEL_MAPS = Path("pascal-context", "trainval")

LISTS = Path("ImageSets", "Context")

EDGES: dict[Split, Callable[[NDArray[np.integer]], NDArray[np.uint8]]] = {
    "train": derived_labels.laplacian_edges,
    "val": derived_labels.region_edges,
}
"""How edges follow from a LabelMap: for training, and as the ground truth of the evaluation."""

SAL_VOID = (128,)


class PascalContext(DiskDataset):
    """A split of PASCAL-Context.

    Args:
        split: "train" or "val".
        tasks: of semseg, human_parts, edge, saliency, normals.
        root: the folder that holds JPEGImages/.
        train_list: the list ImageSets/Context/NAME.txt that is the training split.
        val_list: the same for validation.
        edge_val_list: the list ImageSets/Context/NAME.txt of the validation images whose edges are
            scored, of which there are 2498 in published results; by default all that have edges.
        cache: a folder of edges and parts made by `datasets/prepare_pascal_context.py`; without
            it they are derived each time an image is read.
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
        train_list: str = "train",
        val_list: str = "val",
        edge_val_list: str | None = None,
        cache: Path | None = None,
        normals_axes: Axes = CAMERA_AXES,
    ) -> None:
        self._root = root.expanduser()
        self._cache = None if cache is None else cache.expanduser()
        self._axes = normals_axes
        source = self._list(train_list if split == "train" else val_list)
        self._edge_list = None if edge_val_list is None else self._list(edge_val_list)
        if not source.parent.is_dir():
            looked = f"{LISTS}/{source.name} and JPEGImages/"
            raise DataError(f"{root}: no PASCAL-Context here, looked for {looked}; set data.root")
        if self._cache is not None and not self._cache.is_dir():
            command = f"python datasets/prepare_pascal_context.py {root} --output {cache}"
            raise DataError(f"{cache}: no such cache; make it by `{command}`, or leave it out")
        images = arrays.index(self._root / "JPEGImages")
        super().__init__(split, tasks, arrays.read_ids(source), images, source)

    @classmethod
    def offers(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """The five tasks of Maninis et al. (2019)."""
        return {
            "semseg": {"class_names": list(CLASSES)},
            "human_parts": {"class_names": list(PARTS)},
            "edge": {"max_distance": EDGE_DISTANCE},
            "saliency": {},
            "normals": {},
        }

    def labels(self, task: str) -> Labels:
        """The files of a task, and how to read them."""
        sources: dict[str, Callable[[], Labels]] = {
            "semseg": self._semseg,
            "human_parts": self._human_parts,
            "edge": self._edge,
            "saliency": self._saliency,
            "normals": self._normals,
        }
        return sources[task]()

    def files(self, index: int) -> list[Path]:
        """Normals depend on the LabelMap besides."""
        return [*super().files(index), self._root / LABEL_MAPS / f"{self.ids[index]}.mat"]

    def _semseg(self) -> Labels:
        folder = self._root / "semseg"
        found = arrays.index(folder / "pascal-context") | arrays.index(folder / "VOC12")
        return Labels(found, _read_semseg, folder)

    def _human_parts(self) -> Labels:
        folder = self._root / "human_parts"
        return Labels(arrays.index(folder) | self._cached("human_parts"), _read_human_parts, folder)

    def _edge(self) -> Labels:
        maps = arrays.index(self._root / LABEL_MAPS) or arrays.index(self._root / "edge")
        found = maps | self._cached(f"edge_{self.split}")
        read = partial(_read_edge, rule=EDGES[self.split])
        if self.split == "train" or self._edge_list is None:
            return Labels(found, read, self._root / LABEL_MAPS)
        scored = set(arrays.read_ids(self._edge_list))
        lacking = scored.intersection(self.ids) - found.keys()
        if lacking:
            count = f"{len(lacking)} of its {len(scored)} images"
            raise DataError(f"{self._edge_list}: {count} have no edges, such as {min(lacking)!r}")
        own = {name: file for name, file in found.items() if name in scored}
        return Labels(own, read, self._edge_list)

    def _saliency(self) -> Labels:
        distilled = arrays.index(self._root / "sal_distill")
        if distilled:
            return Labels(distilled, _read_saliency, self._root / "sal_distill")
        derived = arrays.index(self._root / "sal")
        read = partial(_read_saliency, void=SAL_VOID)
        return Labels(derived, read, self._root / "sal_distill")

    def _normals(self) -> Labels:
        folder = self._root / "normals_distill"
        maps = self._root / LABEL_MAPS
        return Labels(
            arrays.index(folder), partial(_read_normals, axes=self._axes, maps=maps), folder
        )

    def _list(self, name: str) -> Path:
        return self._root / LISTS / f"{name}.txt"

    def _cached(self, name: str) -> dict[str, Path]:
        return {} if self._cache is None else arrays.index(self._cache / name)


def read_label_map(file: Path) -> NDArray[np.integer]:
    """HxW labels 0..459 of an image."""
    return arrays.read_array(file, "LabelMap")


_SEMSEG = {VOID: VOID, **{label: label for label in range(len(CLASSES))}}
_PARTS = {VOID: VOID, **{part: part for part in range(len(PARTS))}}


def _read_semseg(file: Path) -> NDArray[np.uint8]:
    return label_formats.to_classes(arrays.read_array(file), _SEMSEG, file)


def _read_human_parts(file: Path) -> NDArray[np.uint8] | None:
    if file.suffix == ".mat":
        return read_parts(file)
    parts = label_formats.to_classes(arrays.read_array(file), _PARTS, file)
    return parts if shows_a_part(parts) else None


def _read_edge(
    file: Path, rule: Callable[[NDArray[np.integer]], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    if file.suffix == ".mat":
        return rule(read_label_map(file))
    return label_formats.to_binary(arrays.read_array(file), file, full=255)


def _read_saliency(file: Path, void: Sequence[int] = ()) -> NDArray[np.uint8]:
    return label_formats.to_binary(arrays.read_array(file), file, full=255, void=void)


def _read_normals(file: Path, axes: Axes, maps: Path) -> NDArray[np.float32]:
    """Normals where the network that they come from knew the label; all of them without a map."""
    normals = label_formats.to_normals(arrays.read_array(file), file, axes)
    label_map = maps / f"{file.stem}.mat"
    if label_map.exists():
        known = np.isin(read_label_map(label_map), LABELS_WITH_NORMALS)
        if known.shape != normals.shape[:2]:
            raise DataError(f"{label_map}: its LabelMap is of another size than {file}")
        normals[~known] = np.nan
    return normals
