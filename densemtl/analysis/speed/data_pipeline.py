"""Speed of the data pipeline: images per CPU second, and CPU time of each stage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from statistics import median

import numpy as np

from densemtl.analysis.speed.timing import Measurement, compute_medians, time_interleaved
from densemtl.config.experiment import ExperimentConfig
from densemtl.data.batching import TrainCollate, TrainDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.factory import build_dataset, build_tasks, build_train_loader
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import Batch, Image, ImagePlacement, Sample

STAGE_NAMES = ("decode", "warp image", "warp labels", "color", "collate")

COLLATE_BATCH_SIZE = 8
"""Number of images that are collated to one batch when timing this stage."""


def measure_data(
    experiment: ExperimentConfig, repeats: int, num_images: int = 64
) -> list[Measurement]:
    """Measure the pipeline of the training set in one process, on its first images.

    Args:
        experiment: a validated configuration.
        repeats: number of repetitions; medians are reported.
        num_images: approximate number of images per repetition, rounded down to full batches.

    Returns:
        Images per CPU second of the whole pipeline, and CPU milliseconds per image of each stage.

    Raises:
        DataError: if files of the dataset are missing or invalid.
    """
    dataset = build_dataset(experiment, "train")
    tasks = build_tasks(experiment)
    loader = build_train_loader(experiment, dataset, tasks, pin_memory=False)
    view = loader.dataset.dataset  # type: ignore[attr-defined]
    assert isinstance(view, TrainDataset)
    batches = max(min(num_images, len(dataset)) // experiment.loader.batch_size, 1)
    times = time_interleaved({"whole": lambda: _take_batches(loader, batches)}, repeats)
    count = batches * experiment.loader.batch_size
    whole = count / median(times["whole"])
    stages = PipelineStages(view, count).measure_milliseconds(repeats)
    return [
        Measurement("data", "whole pipeline", whole, "images/CPU-s"),
        *(Measurement("data", stage, value, "CPU-ms/image") for stage, value in stages.items()),
    ]


def _take_batches(loader: ErrorForwardingDataLoader[Batch], num_batches: int) -> list[Batch]:
    return list(islice(loader, num_batches))


class PipelineStages:
    """Separate stages of a data pipeline; each stage processes the output of the previous one.

    Args:
        dataset: the training dataset with its transforms.
        num_images: number of images that each stage processes.
    """

    def __init__(self, dataset: TrainDataset, num_images: int) -> None:
        self._dataset, self._indices = dataset, range(num_images)
        samples = [dataset.dataset[index] for index in self._indices]
        self._pairs = [
            (sample, self._sample_transform(index, sample)) for index, sample in enumerate(samples)
        ]
        self._warped = self._warp_images()
        frame = ImagePlacement(dataset.size, (0, 0, *dataset.size))
        self._items = [(dataset[0, index][0], frame) for index in self._indices]

    def _sample_transform(self, index: int, sample: Sample) -> GeometricTransform:
        rng = np.random.default_rng((self._dataset.seed, 0, index))
        geometry = self._dataset.get_augmentation(index).geometry
        return geometry.sample(sample, self._dataset.size, self._dataset.fit, rng)

    def measure_milliseconds(self, repeats: int) -> dict[str, float]:
        """Measure all stages.

        Args:
            repeats: number of repetitions; medians are reported.

        Returns:
            {stage: CPU milliseconds per image}.
        """
        works: tuple[Callable[[], object], ...] = (
            self._decode,
            self._warp_images,
            self._warp_labels,
            self._transform_colors,
            self._collate,
        )
        times = compute_medians(
            time_interleaved(dict(zip(STAGE_NAMES, works, strict=True)), repeats)
        )
        return {name: 1000 * seconds / len(self._indices) for name, seconds in times.items()}

    def _decode(self) -> object:
        for index in self._indices:
            self._dataset.dataset[index]
        return None

    def _warp_images(self) -> list[Image]:
        border = self._dataset.border
        return [geometry.apply_image(sample.image, border) for sample, geometry in self._pairs]

    def _warp_labels(self) -> object:
        return [self._dataset.warp_labels(sample, geometry) for sample, geometry in self._pairs]

    def _transform_colors(self) -> object:
        rng = np.random.default_rng(0)
        return [
            transform(image, rng)
            for index, image in enumerate(self._warped)
            for transform in self._dataset.get_augmentation(index).image_transforms
        ]

    def _collate(self) -> object:
        collate, starts = (
            TrainCollate(self._dataset.tasks),
            range(0, len(self._items), COLLATE_BATCH_SIZE),
        )
        return [collate(self._items[start : start + COLLATE_BATCH_SIZE]) for start in starts]
