"""Classes of values that a run computes from its training labels before it starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from densemtl.data.base import DenseDataset
from densemtl.data.label_statistics import select_images
from densemtl.distributed.collectives import all_gather_object, get_rank, get_world_size
from densemtl.layers.value_classes import ValueClasses
from densemtl.runtime.progress_bar import print_message, track_progress

MAX_IMAGES = 500
"""Largest number of images whose labels are read; see `select_images` for more images."""

PIXELS_PER_IMAGE = 1000
"""Largest number of valid pixels of an image that are used."""

TaskValues = dict[str, NDArray[np.float32]]
"""{task: values of some pixels, shape (N, C)}."""


def fit_value_classes(model: nn.Module, train: DenseDataset) -> None:
    """Compute the classes of values of a model that were neither computed nor loaded yet.

    The labels are read without augmentation, divided among the ranks. The result does not depend on
    the number of ranks or on the seed.

    Args:
        model: model, possibly with modules `ValueClasses`.
        train: training split.

    Raises:
        DataError: if an image cannot be read, or its labels are impossible.
    """
    missing = [
        module
        for module in model.modules()
        if isinstance(module, ValueClasses) and not module.is_fitted and module.task in train.tasks
    ]
    if not missing:
        return
    names = [module.task for module in missing]
    indices = select_images(train, MAX_IMAGES)
    part = indices[get_rank() :: get_world_size()]
    title = f"reading the values of {len(part)} training images"
    by_image = {
        index: _sample_values(train, index, names)
        for index in track_progress(part, len(part), title)
    }
    joined = {
        index: values for rank in all_gather_object(by_image) for index, values in rank.items()
    }
    for module in missing:
        found = [joined[index][module.task] for index in indices if module.task in joined[index]]
        if not any(len(values) for values in found):
            print_message(
                f"warning: {module.task}: none of {len(indices)} training images has a valid "
                "value; the default classes of values are used"
            )
            continue
        module.fit(np.concatenate(found))
        print_message(
            f"{module.task}: {len(module.centers)} classes of values, from {len(found)} of "
            f"{len(train)} training images"
        )


def _sample_values(train: DenseDataset, index: int, tasks: list[str]) -> TaskValues:
    """Return the values of valid pixels of an image, always the same ones."""
    targets, generator = train[index].targets, np.random.default_rng(index)
    values: TaskValues = {}
    for task in tasks:
        if task in targets:
            label = targets[task].astype(np.float32, copy=False)
            pixels = label.reshape(label.shape[0] * label.shape[1], -1)
            valid = pixels[np.isfinite(pixels).all(axis=1)]
            chosen = generator.permutation(len(valid))[:PIXELS_PER_IMAGE]
            values[task] = valid[chosen]
    return values
