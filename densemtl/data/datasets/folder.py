"""Dataset of custom images and label maps in folders, described in the configuration.

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
    depth: {files: "depth/{id}.png"}              # 16-bit millimeters, 0 unknown
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
    """Split lists: text files with one image id per line.

    Attributes:
        train: list of the training images.
        val: list of the validation images.
    """

    train: Path
    val: Path


class FolderDataset(FileDataset):
    """Split of a custom dataset.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read, keys of `labels`.
        root: folder that all other paths are relative to.
        images: folder, or a pattern such as left/{id}_left.png with {id} for the image id.
        labels: {task: description of its label maps}.
        splits: lists of image ids; without lists, images are split by a hash of their ids.
        val_fraction: fraction of validation images if there are no lists.

    Raises:
        ConfigError: if the description of a label is incomplete.
        DataError: if files are missing.
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
            raise DataError(
                f"{self._root / images}: no images here; set data.root or data.images (file types:"
                f" {', '.join(arrays.SUPPORTED_SUFFIXES)})"
            )
        if splits is None:
            source = self._root / images
            ids = _split_by_hash(sorted(image_files), split, val_fraction, source)
        else:
            source = self._root / (splits.train if split == "train" else splits.val)
            ids = arrays.read_split_list(source)
        super().__init__(split, tasks, ids, image_files, source)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Return one task for each key of `labels`, with its options.

        Args:
            **options: the options of the dataset, of which `labels` is read.

        Returns:
            {task name: {option: default value}}.
        """
        specs: dict[str, LabelSpec] = options["labels"]
        return {task: spec.task_defaults() for task, spec in specs.items()}

    def find_label_files(self, task: str) -> LabelFiles:
        """Find the label maps of a task by its folder or pattern.

        Args:
            task: name of the task, a key of `labels`.

        Returns:
            The files and the function that reads them.

        Raises:
            ConfigError: if the description of the label is incomplete.
        """
        spec = self._label_specs[task]
        return LabelFiles(
            _index_files(self._root, spec.files), spec.make_reader(task), self._root / spec.files
        )


def _index_files(root: Path, pattern: str) -> dict[str, Path]:
    """Return {image id: file} of a folder or pattern.

    A pattern also matches in subfolders, which are then part of the image id.
    """
    before, marker, after = pattern.partition("{id}")
    if not marker:
        return arrays.index_by_stem(root / pattern)
    wildcard = "*" if before and not before.endswith("/") else "**/*"
    paths = root.glob(before + wildcard + after)
    files = {path.relative_to(root).as_posix(): path for path in paths}
    return {name[len(before) : len(name) - len(after)]: path for name, path in files.items()}


def _split_by_hash(ids: list[str], split: Split, val_fraction: float, source: Path) -> list[str]:
    """Select the images of a split by a hash of their ids.

    If images are added, nearly all of the others stay in their split.
    """
    if len(ids) < 2:
        raise DataError(f"{source}: a single image cannot be split; add images, or set data.splits")
    shuffled = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = min(max(round(val_fraction * len(ids)), 1), len(ids) - 1)
    return sorted(shuffled[:count] if split == "val" else shuffled[count:])
