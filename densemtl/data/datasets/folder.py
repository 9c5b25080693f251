"""A dataset of one's own: images and label maps in folders, described in the configuration.

data:
  name: folder
  root: /data/mine
  images: images                      # a folder, or a pattern: left/{id}_left.png
  splits: {train: train.txt, val: val.txt}        # or val_fraction: 0.2
  labels:
    semseg:
      files: masks
      class_names: [road, car, sky]
      first_class_id: 1
      ignore_values: [0]
    depth: {files: "depth/{id}.png"}              # 16-bit millimetres, 0 unknown
    water: {files: water, kind: binary}
    height: {files: height, kind: regression, scale: 0.01, ignore_values: [65535]}
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densemtl.config.constraints import OpenUnitInterval
from densemtl.config.sections import Section
from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.data.file_dataset import FileDataset, LabelFiles
from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.types import Split


class SplitFiles(Section):
    """Files that list the image names of each split, one a line."""

    train: Path
    val: Path


class FolderDataset(FileDataset):
    """A split of one's own data.

    Args:
        split: "train" or "val".
        tasks: names among `labels`.
        root: the folder that all other paths start from.
        images: a folder, or a pattern with {id} for an image's name.
        labels: {task: its label maps}.
        splits: lists of image names; without them the images are split by their names.
        val_fraction: share of the images that validate, when there are no lists.

    Raises:
        ConfigError: a label's description is incomplete.
        DataError: files that are missing.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        root: Path,
        images: str,
        labels: dict[str, LabelSpec],
        splits: SplitFiles | None = None,
        val_fraction: OpenUnitInterval = 0.2,
    ) -> None:
        self._root, self._label_specs = root.expanduser(), labels
        image_files = _index_files(self._root, images)
        if not image_files:
            raise DataError(f"{self._root / images}: no images here; set data.root or data.images")
        if splits is None:
            source = self._root / images
            ids = _split_by_hash(sorted(image_files), split, val_fraction, source)
        else:
            source = self._root / (splits.train if split == "train" else splits.val)
            ids = arrays.read_split_list(source)
        super().__init__(split, tasks, ids, image_files, source)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """One task for each label that is described."""
        described: dict[str, LabelSpec] = options["labels"]
        return {task: maps.task_defaults() for task, maps in described.items()}

    def find_label_files(self, task: str) -> LabelFiles:
        """The files of a task, and how to read them."""
        maps = self._label_specs[task]
        return LabelFiles(
            _index_files(self._root, maps.files), maps.make_reader(task), self._root / maps.files
        )


def _index_files(root: Path, pattern: str) -> dict[str, Path]:
    """{image name: file} of a folder or pattern; names in a pattern may reach into subfolders."""
    before, marker, after = pattern.partition("{id}")
    if not marker:
        return arrays.index_by_stem(root / pattern)
    deep = "*" if before and not before.endswith("/") else "**/*"
    files = {path.relative_to(root).as_posix(): path for path in root.glob(before + deep + after)}
    return {name[len(before) : len(name) - len(after)]: path for name, path in files.items()}


def _split_by_hash(ids: list[str], split: Split, val_fraction: float, source: Path) -> list[str]:
    """The images of a split; which they are hangs on their names alone."""
    if len(ids) < 2:
        raise DataError(f"{source}: a single image cannot be split; add images, or set data.splits")
    shuffled = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = min(max(round(val_fraction * len(ids)), 1), len(ids) - 1)
    return sorted(shuffled[:count] if split == "val" else shuffled[count:])
