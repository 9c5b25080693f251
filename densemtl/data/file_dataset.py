"""Base class of datasets that store an image file and label files per sample."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densemtl.data.base import DenseDataset
from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.transforms.geometry import stretch_to_size
from densemtl.types import IGNORE_INDEX, Image, Sample, Split

MAX_ASPECT_DIFFERENCE = 0.02
"""Maximum relative difference of the aspect ratios of an image and a label that is resized."""


@dataclass(frozen=True)
class LabelFiles:
    """Label files of one task.

    Attributes:
        files: {image id: file}; images without a label are absent.
        read: function from a file to a label in the layout of `Sample`, or to None if the file
            contains no label.
        searched_path: folder or pattern where the files were searched, for error messages.
        resize: whether labels of another size are resized to that of the image.
    """

    files: Mapping[str, Path]
    read: Callable[[Path], NDArray[np.generic] | None]
    searched_path: Path
    resize: bool = False


class MissingLabelsError(DataError):
    """Split without any label of a task.

    Args:
        reason: where labels were searched.
        task: name of the task.

    Attributes:
        reason: as given.
        task: as given.
    """

    def __init__(self, reason: str, task: str) -> None:
        super().__init__(f"{reason}; add the label files, or remove the task")
        self.reason, self.task = reason, task


class FileDataset(DenseDataset):
    """Base class of datasets of files.

    Subclasses find the files and pass the image files to this constructor; this class reads and
    checks the samples.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read.
        ids: name of each image of the split, in order.
        images: {image id: file}; may contain further images.
        source: split list or folder that the ids come from, for error messages.

    Raises:
        DataError: if an image is missing.
        MissingLabelsError: if no image of the split has a label of some task.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        ids: Sequence[str],
        images: Mapping[str, Path],
        source: Path,
    ) -> None:
        super().__init__(split, tasks)
        self.ids = tuple(ids)
        missing = [name for name in self.ids if name not in images]
        if missing:
            count = f"{len(missing)} of its {len(self.ids)} images"
            raise DataError(f"{source}: {count} have no file, the first is {missing[0]!r}")
        self._image_files = {name: images[name] for name in self.ids}
        self._label_files = {
            task: self._select_split_files(self.find_label_files(task), task) for task in self.tasks
        }

    @abstractmethod
    def find_label_files(self, task: str) -> LabelFiles:
        """Find the label files of a task; called once for each task.

        Args:
            task: name of the task.

        Returns:
            The files and the function that reads them.
        """

    def get_sample_version(self, index: int) -> str:
        """Return a hash of the names, sizes and modification times of the files of a sample.

        Args:
            index: position in `ids`.

        Returns:
            64 hexadecimal digits.
        """
        stats = [
            (str(file), file.stat()) for file in self.list_sample_files(index) if file.exists()
        ]
        text = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        return hashlib.sha256(text.encode()).hexdigest()

    def list_sample_files(self, index: int) -> list[Path]:
        """List the files that a sample is read from.

        Args:
            index: position in `ids`.

        Returns:
            The image file and the label files.
        """
        name = self.ids[index]
        labels = [
            task_files.files[name]
            for task_files in self._label_files.values()
            if name in task_files.files
        ]
        return [*self.list_image_files(name), *labels]

    def list_image_files(self, name: str) -> list[Path]:
        """List the files that the image of a sample is read from.

        Args:
            name: image id.

        Returns:
            The image file.
        """
        return [self._image_files[name]]

    def read_image(self, name: str) -> tuple[Image, int | None]:
        """Read the image of a sample.

        Args:
            name: image id.

        Returns:
            The image in the layout of `Sample`, and the EXIF orientation that it was turned by.

        Raises:
            DataError: if the file is missing, corrupt or no image.
        """
        return arrays.read_image_and_orientation(self._image_files[name])

    def _select_split_files(self, label_files: LabelFiles, task: str) -> LabelFiles:
        files = {name: label_files.files[name] for name in self.ids if name in label_files.files}
        if not files:
            raise MissingLabelsError(
                f"{label_files.searched_path}: no {task} label for any of the {len(self.ids)} "
                f"images of {self.split!r}",
                task,
            )
        return replace(label_files, files=files)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Args:
            index: position in `ids`.

        Returns:
            The sample; a task without a label for this image is absent.

        Raises:
            DataError: if a file is missing or corrupt, a label has a wrong size or value, or it is
                unknown whether it is turned like its image; the message names the file.
        """
        name = self.ids[index]
        image, orientation = self.read_image(name)
        targets = {}
        for task, labels in self._label_files.items():
            if name in labels.files:
                file = labels.files[name]
                targets[task] = _read_label(labels, file, image.shape[:2], orientation)
                if orientation not in (None, 1):
                    _check_orientation(file, self._image_files[name], orientation, image.shape)
        valid_targets = {task: target for task, target in targets.items() if target is not None}
        return Sample(image, valid_targets, name)


def _read_label(
    label_files: LabelFiles, file: Path, image_size: tuple[int, ...], orientation: int | None
) -> NDArray[np.generic] | None:
    target = label_files.read(file)
    if target is not None and label_files.resize:
        target = _resize_label(target, image_size)
    if target is not None and target.shape[:2] != image_size:
        actual, expected = ("x".join(map(str, shape)) for shape in (target.shape[:2], image_size))
        turned = "" if orientation in (None, 1) else f", turned by EXIF orientation {orientation}"
        raise DataError(f"{file}: the label is {actual} pixels, its image {expected} (HxW){turned}")
    return target


def _resize_label(target: NDArray[np.generic], image_size: tuple[int, ...]) -> NDArray[np.generic]:
    """Resize a label by nearest neighbor if it has the aspect ratio of the image."""
    (height, width), (image_height, image_width) = target.shape[:2], image_size
    if abs(width * image_height / (height * image_width) - 1) > MAX_ASPECT_DIFFERENCE:
        return target
    transform, _ = stretch_to_size((height, width), (image_height, image_width))
    return transform.apply_label(target, IGNORE_INDEX)


def _check_orientation(
    label_file: Path, image_file: Path, orientation: int | None, image_shape: tuple[int, ...]
) -> None:
    """Reject a label that may have the orientation of the stored pixels of a turned image.

    A label with an orientation of its own is upright as well. If the image is turned by 90 degrees,
    a label that is not has another size, which has been checked.
    """
    if orientation in (5, 6, 7, 8) and image_shape[0] != image_shape[1]:
        return
    if arrays.read_orientation(label_file) is None:
        raise DataError(
            f"{label_file}: its image {image_file} is turned by EXIF orientation {orientation}, but"
            " the label has none. If the label is upright, turn the image (mogrify -auto-orient);"
            " if it matches the stored pixels, remove the tag (exiftool -Orientation=)"
        )
