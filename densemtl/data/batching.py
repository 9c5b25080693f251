"""Augmented and fitted samples, and collate functions that turn them into batches.

A sampler (`densemtl.data.samplers`) yields pairs (epoch, index), and all randomness of a training
sample is seeded by (seed, view, index), where the view is the epoch unless the number of views is
limited. Batches are therefore the same for any number of worker processes, and a run that is
resumed in the middle of an epoch gets the same remaining batches. In training, ranks share each
batch; in evaluation, ranks share the images of the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from densemtl.config.sections import FitMode
from densemtl.data.base import DenseDataset
from densemtl.data.samplers import EpochIndex
from densemtl.errors import DataError
from densemtl.ops.layouts import to_tensor
from densemtl.tasks.base import Task
from densemtl.tasks.class_gates import Gate, complete_targets, find_gates
from densemtl.transforms.color_transforms import ImageTransform
from densemtl.transforms.geometry import GeometricTransform, pad_to_size, stretch_to_size
from densemtl.transforms.random_geometry import RandomGeometry
from densemtl.types import Batch, ImagePlacement, Sample, Size


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of a training sample.

    Attributes:
        geometry: distribution of the geometric transforms.
        image_transforms: color transforms of the image, applied in this order after the geometry.
    """

    geometry: RandomGeometry
    image_transforms: Sequence[ImageTransform] = ()


class TrainDataset(Dataset[tuple[Sample, ImagePlacement]]):
    """Dataset of augmented training samples that all have one size.

    The index is a pair (epoch, index), so that every epoch sees other random transforms.

    Args:
        dataset: training split.
        tasks: tasks whose labels are transformed; other labels are dropped.
        size: (height, width) of the network's input in pixels.
        fit: "resize" stretches images to `size`; "pad" keeps their pixels and pads or crops.
        augmentations: augmentation of each set of `dataset.mixture`, or a single one of all images.
        seed: seed of all random transforms.
        border: value of each channel outside the image, see `GeometricTransform.apply_image`.

    Attributes:
        num_views: number of different views of each image, which the epochs repeat in turn; None
            for another one in each epoch.
    """

    num_views: int | None = None

    def __init__(
        self,
        dataset: DenseDataset,
        tasks: Sequence[Task],
        size: Size,
        fit: FitMode,
        augmentations: Sequence[Augmentation],
        seed: int,
        border: Sequence[float] | None = None,
    ) -> None:
        self.dataset, self.tasks = dataset, tasks
        self.size, self.fit = size, fit
        self.seed, self.border = seed, border
        self._augmentations = augmentations
        set_sizes = dataset.mixture.sizes if dataset.mixture else [len(dataset)]
        self._set_ends = np.cumsum(set_sizes)

    def __getitem__(self, epoch_index: EpochIndex) -> tuple[Sample, ImagePlacement]:
        """Read and augment one sample.

        Args:
            epoch_index: (epoch, index into the dataset).

        Returns:
            The augmented sample, and its placement, which covers the whole input.

        Raises:
            DataError: if the sample cannot be read, or a label does not fit its task.
        """
        epoch, index = epoch_index
        view = epoch % self.num_views if self.num_views else epoch
        rng = np.random.default_rng((self.seed, view, index))
        sample = self.dataset[index]
        augmentation = self.get_augmentation(index)
        geometry = augmentation.geometry.sample(sample, self.size, self.fit, rng)
        image = geometry.apply_image(sample.image, self.border)
        for image_transform in augmentation.image_transforms:
            image = image_transform(image, rng)
        targets = self.warp_labels(sample, geometry)
        return Sample(image, targets, sample.id), ImagePlacement(self.size, (0, 0, *self.size))

    def get_augmentation(self, index: int) -> Augmentation:
        """Return the augmentation of a sample.

        Args:
            index: position in the dataset.

        Returns:
            The augmentation of its set.
        """
        number = int(np.searchsorted(self._set_ends, index, side="right"))
        return self._augmentations[number]

    def warp_labels(
        self, sample: Sample, transform: GeometricTransform
    ) -> dict[str, NDArray[np.generic]]:
        """Apply a geometric transform to the labels of a sample.

        Args:
            sample: sample as the dataset reads it.
            transform: transform that is also applied to the image.

        Returns:
            {task name: transformed label}, without the tasks that have no label in `sample`.

        Raises:
            DataError: if a label does not fit its task.
        """
        labels = {task: _get_checked_label(task, sample) for task in self.tasks}
        return {
            task.name: task.transform_label(label, transform)
            for task, label in labels.items()
            if label is not None
        }

    def __len__(self) -> int:
        return len(self.dataset)


class EvalDataset(Dataset[tuple[Sample, ImagePlacement]]):
    """Dataset of evaluation samples: images fit the input, labels keep their original size.

    Args:
        dataset: validation split.
        size: (height, width) of the network's input in pixels.
        fit: "resize" stretches images to `size`; "pad" places them unscaled in the middle.
        border: value of each channel outside the image, see `GeometricTransform.apply_image`.
    """

    def __init__(
        self,
        dataset: DenseDataset,
        size: Size,
        fit: FitMode,
        border: Sequence[float] | None = None,
    ) -> None:
        self.dataset, self.size, self.fit = dataset, size, fit
        self.border = border

    def __getitem__(self, index: int) -> tuple[Sample, ImagePlacement]:
        """Read one sample and fit its image to the input.

        Args:
            index: position in the dataset.

        Returns:
            The sample with the fitted image and unchanged labels, and the placement of the
            original image in the input.

        Raises:
            DataError: if the sample cannot be read, or is larger than the padded input.
        """
        sample = self.dataset[index]
        if self.fit == "pad" and (sample.size[0] > self.size[0] or sample.size[1] > self.size[1]):
            raise DataError(
                f"image {sample.id} is {sample.size[0]}x{sample.size[1]}, larger than the padded "
                f"input {self.size[0]}x{self.size[1]}: raise input.size, or set input.fit=resize"
            )
        geometry, frame = (stretch_to_size if self.fit == "resize" else pad_to_size)(
            sample.size, self.size
        )
        image = geometry.apply_image(sample.image, self.border)
        return Sample(image, sample.targets, sample.id), frame

    def __len__(self) -> int:
        return len(self.dataset)


class TrainCollate:
    """Collate function of training batches.

    Tasks without a label for an image get a target of ignored pixels only. Labels of tasks with the
    option `entire_space` are completed by those of other tasks.

    Args:
        tasks: tasks whose targets the batch contains.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.gates = self.find_gates()

    def find_gates(self) -> Sequence[Gate]:
        """Find the gates by which labels are completed.

        Returns:
            The gates of all tasks.
        """
        return find_gates(self.tasks)

    def __call__(self, items: Sequence[tuple[Sample, ImagePlacement]]) -> Batch:
        """Join samples to a batch.

        Args:
            items: B pairs of a sample and its placement; all images have the same size.

        Returns:
            The batch. Targets have the largest original size of the items; smaller labels are in
            the top left corner, and the rest are ignored pixels.
        """
        samples = [sample for sample, _ in items]
        frames = [frame for _, frame in items]
        size = max(f.size[0] for f in frames), max(f.size[1] for f in frames)
        image = torch.from_numpy(np.stack([sample.image for sample in samples]))
        targets = {}
        for task in self.tasks:
            labels = [_pad_label(self.get_label(task, sample), task, size) for sample in samples]
            targets[task.name] = to_tensor(np.stack(labels))
        ids = [sample.id for sample in samples]
        targets = complete_targets(self.gates, targets)
        return Batch(image.permute(0, 3, 1, 2), targets, ids, frames)

    def get_label(self, task: Task, sample: Sample) -> NDArray[np.generic] | None:
        """Return the label of a task, which `TrainDataset` has already checked.

        Args:
            task: task of the label.
            sample: sample of a batch.

        Returns:
            The label, or None if the sample has none.
        """
        return sample.targets.get(task.name)


class EvalCollate(TrainCollate):
    """Collate function of evaluation batches, which also checks the labels.

    Args:
        tasks: tasks whose targets the batch contains.
    """

    def find_gates(self) -> Sequence[Gate]:
        """Return no gates, since metrics use the labels of the dataset."""
        return ()

    def get_label(self, task: Task, sample: Sample) -> NDArray[np.generic] | None:
        """Check and return the label of a task.

        Args:
            task: task of the label.
            sample: sample as the dataset read it.

        Returns:
            The label, or None if the sample has none.

        Raises:
            DataError: if the label does not fit the task.
        """
        return _get_checked_label(task, sample)


def _get_checked_label(task: Task, sample: Sample) -> NDArray[np.generic] | None:
    """Return the label of a task, or None if the sample has none.

    Raises:
        DataError: if the label does not fit the task.
    """
    label = sample.targets.get(task.name)
    error = "" if label is None else task.find_label_error(label)
    if error:
        raise DataError(
            f"image {sample.id}: the label of {task.name!r} {error}: change the task's kind or"
            " options to suit the data"
        )
    return label


def _pad_label(label: NDArray[np.generic] | None, task: Task, size: Size) -> NDArray[np.generic]:
    """Pad a label at the right and bottom with ignored pixels; None gives ignored pixels only."""
    if label is not None and label.shape[:2] == size:
        return label
    canvas = task.make_empty_label(size)
    if label is not None:
        canvas[: label.shape[0], : label.shape[1]] = label
    return canvas
