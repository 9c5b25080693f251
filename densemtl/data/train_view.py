"""Augmented training samples, as the section `augment` of the configuration defines them."""

from __future__ import annotations

from collections.abc import Sequence

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.batching import Augmentation, TrainDataset
from densemtl.data.image_format import get_image_format
from densemtl.tasks.base import Task
from densemtl.transforms.color_transforms import make_color_transforms
from densemtl.transforms.random_geometry import RandomGeometry


def make_train_view(
    experiment: ExperimentConfig,
    dataset: DenseDataset,
    tasks: Sequence[Task],
    border: Sequence[float] | None = None,
) -> TrainDataset:
    """Make the augmented samples of training; each set of a mixture may have its augmentation.

    Args:
        experiment: configuration of input, augmentation and seed.
        dataset: training split.
        tasks: tasks whose labels are transformed.
        border: value of each channel outside the image.

    Returns:
        The augmented samples.

    Raises:
        ConfigError: if a transform of albumentations does not exist or is geometric, or colors are
            changed of images whose channels R, G and B are unknown.
    """
    size, fit, seed = experiment.input.size, experiment.input.fit, experiment.seed
    image_format = get_image_format(experiment.data)
    augmentations = [
        Augmentation(RandomGeometry(each), make_color_transforms(each, image_format))
        for each in dataset.adapt_augment(experiment.augment)
    ]
    view = TrainDataset(dataset, tasks, size, fit, augmentations, seed, border)
    view.num_views = experiment.augment.num_views
    return view
