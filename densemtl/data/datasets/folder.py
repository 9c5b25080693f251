"""Dataset of custom images and label maps in folders, described in the configuration.

data:
  name: folder
  root: /data/mine
  images: images            # a folder, or a pattern: left/{id}_left.png, {scene}/color/{id}.jpg
                            # or several: [color, infrared], with channels: 4
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
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from densemtl.config.constraints import OpenUnitInterval, UserPath
from densemtl.config.sections import Section
from densemtl.data.datasets import folder_checks, folder_patterns
from densemtl.data.datasets.folder_images import (
    ImagePatterns,
    NumImageChannels,
    RGBChannels,
    check_complete,
    make_image_format,
)
from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.data.datasets.folder_patterns import SPLIT_PLACEHOLDER, FilePattern
from densemtl.data.file_dataset import FileDataset, LabelFiles
from densemtl.errors import ConfigError, DataError
from densemtl.io import arrays
from densemtl.io.channels import read_channels
from densemtl.io.paths import describe_content, require_folder
from densemtl.types import Image, ImageFormat, Split


class SplitFiles(Section):
    """Split lists: text files with one image id, or one scene or folder of images, per line.

    If `images` contains {split}, these are the names of the folders that {split} stands for.

    Attributes:
        train: list, or folder, of the training images.
        val: list, or folder, of the validation images.
    """

    train: UserPath
    val: UserPath


class FolderDataset(FileDataset):
    """Split of a custom dataset.

    Patterns contain {id} for the image id, which may be repeated, and optionally {scene}, wildcards
    `*` and {split}. The scene and the text that a wildcard matches are part of the id: in
    {scene}/color/{id}.jpg, the file kitchen/color/07.jpg has the id kitchen/07. The same holds for
    subfolders if {id} is the only placeholder and begins a folder or file name. An image only has
    labels of the same id. A file that is the label of another image is no image.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read, keys of `labels`.
        root: folder that all other paths are relative to.
        images: folder, or a pattern such as left/{id}_left.png or {split}/{scene}/{id}.jpg; or a
            list of these, such as [color, depth], whose channels are joined in this order. The ids
            are those of the first one.
        channels: number of channels of an image, over all its files. By default, images are RGB,
            and converted to 8 bits. If it is given, 16-bit integers and floats keep their
            precision; the model scales 8-bit values by 1/255, 16-bit ones by 1/65535, and floats
            not at all, before `backbone.mean` and `backbone.std` apply.
        rgb_channels: indices of the channels R, G and B, beginning with 0, whose colors may be
            augmented; by default [0, 1, 2] if there are three channels.
        labels: {task: description of its label maps}.
        splits: lists of image ids, or the folders that {split} stands for (default train and val);
            without lists, images are split by a hash of their ids.
        val_fraction: fraction of validation images if there are no lists.

    Raises:
        ConfigError: if the description of a label is incomplete, or a pattern is wrong.
        DataError: if files are missing or ambiguous, an image is in both splits, or the checked
            labels are ignored.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        root: UserPath,
        images: ImagePatterns,
        labels: dict[str, LabelSpec],
        splits: SplitFiles | None = None,
        val_fraction: OpenUnitInterval = 0.2,
        channels: NumImageChannels | None = None,
        rgb_channels: RGBChannels | None = None,
    ) -> None:
        self._format = make_image_format(images, channels, rgb_channels)
        patterns = (images,) if isinstance(images, str) else images
        images, self._more_images = patterns[0], patterns[1:]
        self._root, self._images, self._label_specs = root, images, labels
        self._split_names: dict[Split, str] = {
            "train": str(splits.train if splits else "train"),
            "val": str(splits.val if splits else "val"),
        }
        if SPLIT_PLACEHOLDER in images and self._split_names["train"] == self._split_names["val"]:
            raise ConfigError("data.splits: both splits are the same; give the folder of each")
        image_files, num_label_files = self._index_images(split)
        num_unlisted, source = 0, self._root / images
        if SPLIT_PLACEHOLDER in images:
            ids = sorted(image_files)
            self._check_split_folders(split, tasks, ids)
        elif splits is None:
            ids = _split_by_hash(sorted(image_files), split, val_fraction, source)
        else:
            source = self._root / self._split_names[split]
            ids, other_ids = self._read_split_lists(split, image_files)
            num_unlisted = len(image_files.keys() - {*ids, *other_ids})
        self.left_out = {"labels of images": num_label_files, "in no split list": num_unlisted}
        super().__init__(split, tasks, ids, image_files, source)
        self._more_files = [self._index_more_images(number) for number in range(1, len(patterns))]
        missing_labels: dict[str, str] = {}
        for task, label_files in self._label_files.items():
            spec = labels[task]
            if line := folder_checks.check_missing_labels(
                ids, label_files, task, split, allow_missing=spec.allow_missing
            ):
                missing_labels[task] = line
            folder_checks.check_label_values(spec, label_files, task, split)
        self.missing_labels = missing_labels

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

    @classmethod
    def image_format(cls, **options: Any) -> ImageFormat:
        """Return the channels that `images`, `channels` and `rgb_channels` describe.

        Args:
            **options: the options of the dataset.

        Returns:
            The channels.

        Raises:
            ConfigError: if these options do not fit together.
        """
        return make_image_format(
            options["images"], options.get("channels"), options.get("rgb_channels")
        )

    def list_image_files(self, name: str) -> list[Path]:
        """List the files that the image of a sample is read from.

        Args:
            name: image id.

        Returns:
            The files in the order of their channels.
        """
        return [*super().list_image_files(name), *(files[name] for files in self._more_files)]

    def read_image(self, name: str) -> tuple[Image, int | None]:
        """Read the image of a sample from one or several files.

        Args:
            name: image id.

        Returns:
            The image in the layout of `Sample`, and the EXIF orientation of its first file.

        Raises:
            DataError: if a file is missing, corrupt or no image, or has other channels or sizes
                than expected.
        """
        if self._format.is_rgb:
            return super().read_image(name)
        return read_channels(self.list_image_files(name), self._format.channels)

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
        reader = spec.make_reader(task, self._root)
        pattern = self._parse_labels(task, self.split)
        files = folder_patterns.index_by_id(pattern, pattern.find_files())
        return LabelFiles(files, reader, self._root / spec.files, spec.resize)

    def _index_more_images(self, number: int) -> dict[str, Path]:
        """Return {image id: file} of one of the further files of the images."""
        pattern = self._parse_more_images(number, self.split)
        files = folder_patterns.index_by_id(pattern, pattern.find_files())
        check_complete(self.ids, files, self._root / self._more_images[number - 1])
        return files

    def _parse_more_images(self, number: int, split: Split) -> FilePattern:
        text, key = self._more_images[number - 1], f"data.images.{number}"
        return folder_patterns.parse_pattern(self._root, text, self._split_folder(split), key)

    def _parse_labels(self, task: str, split: Split) -> FilePattern:
        text, key = self._label_specs[task].files, f"data.labels.{task}.files"
        return folder_patterns.parse_pattern(self._root, text, self._split_folder(split), key)

    def _split_folder(self, split: Split) -> str:
        """Return what {split} stands for; if only labels contain it, the name of the split."""
        return self._split_names[split] if SPLIT_PLACEHOLDER in self._images else split

    def _index_images(self, split: Split) -> tuple[dict[str, Path], int]:
        """Return {image id: file}, and the number of matching files that are labels of images."""
        require_folder(self._root, "data.root")
        pattern = folder_patterns.parse_pattern(
            self._root, self._images, self._split_folder(split), "data.images"
        )
        files = pattern.find_files()
        if not files:
            path = self._root / self._images
            searched = "it" if pattern.folder == path else pattern.folder
            raise DataError(
                f"{path}: no images here ({searched}"
                f" {describe_content(pattern.folder)}); set data.root or data.images (file types:"
                f" {', '.join(arrays.SUPPORTED_SUFFIXES)})"
            )
        others = [self._parse_labels(task, split) for task in self._label_specs]
        others += [
            self._parse_more_images(number, split)
            for number in range(1, len(self._more_images) + 1)
        ]
        images = folder_patterns.remove_label_files(pattern, files, others)
        return folder_patterns.index_by_id(pattern, images), len(files) - len(images)

    def _check_split_folders(self, split: Split, tasks: Sequence[str], ids: list[str]) -> None:
        """Check that labels which both splits share are unambiguous."""
        shared_labels = [
            task for task in tasks if SPLIT_PLACEHOLDER not in self._label_specs[task].files
        ]
        if shared_labels:
            others, _ = self._index_images("val" if split == "train" else "train")
            if both := sorted(others.keys() & set(ids)):
                raise DataError(
                    f"{self._root / self._images}: both splits have an image {both[0]!r}, so that"
                    f" its label is ambiguous; add {{split}} to"
                    f" data.labels.{shared_labels[0]}.files"
                )

    def _read_split_lists(
        self, split: Split, images: Collection[str]
    ) -> tuple[list[str], list[str]]:
        """Read the lists of a split and, if it exists, of the other one; they share no image."""
        lists = {name: self._root / file for name, file in self._split_names.items()}
        ids = folder_patterns.expand_scenes(arrays.read_split_list(lists[split]), images)
        other = lists["val" if split == "train" else "train"]
        if not other.exists():
            return ids, []
        other_ids = folder_patterns.expand_scenes(arrays.read_split_list(other), images)
        folder_checks.check_disjoint(ids, other_ids, f"{lists['train']} and {lists['val']}")
        return ids, other_ids


def _split_by_hash(ids: list[str], split: Split, val_fraction: float, source: Path) -> list[str]:
    """Select the images of a split by a hash of their ids.

    If images are added, nearly all of the others stay in their split.
    """
    if len(ids) < 2:
        raise DataError(f"{source}: a single image cannot be split; add images, or set data.splits")
    shuffled = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = min(max(round(val_fraction * len(ids)), 1), len(ids) - 1)
    return sorted(shuffled[:count] if split == "val" else shuffled[count:])
