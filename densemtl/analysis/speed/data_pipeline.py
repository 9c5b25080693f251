"""Images per CPU-second of the data pipeline, and what each of its stages takes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from statistics import median

import numpy as np

from densemtl.factory import build_dataset, build_tasks, build_train_loader
from densemtl.config.experiment import Experiment
from densemtl.transforms.geometry import Geometry
from densemtl.data.batching import Collate, TrainView
from densemtl.data.dataloader import Loader
from densemtl.analysis.speed.timing import Measure, interleaved, medians
from densemtl.types import Batch, Frame, Sample

STAGES = ("decode", "warp image", "warp labels", "colour", "collate")

BATCH = 8
"""Images joined at once."""


def measure_data(experiment: Experiment, repeats: int, images: int = 64) -> list[Measure]:
    """The training set's pipeline in one process, on its first images.

    Raises:
        DataError: the data is not there.
    """
    dataset = build_dataset(experiment, "train")
    tasks = build_tasks(experiment)
    loader = build_train_loader(experiment, dataset, tasks, pin_memory=False)
    view = loader.dataset.dataset  # type: ignore[attr-defined]
    assert isinstance(view, TrainView)
    batches = max(min(images, len(dataset)) // experiment.loader.batch_size, 1)
    times = interleaved({"whole": lambda: _first(loader, batches)}, repeats)
    count = batches * experiment.loader.batch_size
    whole = count / median(times["whole"])
    stages = Stages(view, count).milliseconds(repeats)
    return [
        Measure("data", "whole pipeline", whole, "images/CPU-s"),
        *(Measure("data", stage, value, "CPU-ms/image") for stage, value in stages.items()),
    ]


def _first(loader: Loader[Batch], batches: int) -> list[Batch]:
    return list(islice(loader, batches))


class Stages:
    """The stages of a view one by one, each on what the stage before gave."""

    def __init__(self, view: TrainView, images: int) -> None:
        self._view, self._images = view, range(images)
        samples = [view.dataset[index] for index in self._images]
        self._samples = samples
        self._geometries = [self._draw(index, sample) for index, sample in enumerate(samples)]
        pairs = list(zip(samples, self._geometries, strict=True))
        self._warped = [geometry.image(sample.image) for sample, geometry in pairs]
        frame = Frame(view.size, (0, 0, *view.size))
        self._items = [(view[0, index][0], frame) for index in self._images]
        self._pairs = pairs

    def _draw(self, index: int, sample: Sample) -> Geometry:
        rng = np.random.default_rng((self._view.seed, 0, index))
        return self._view.augment.draw(sample, self._view.size, self._view.fit, rng)

    def milliseconds(self, repeats: int) -> dict[str, float]:
        """CPU milliseconds an image of each stage that there is."""
        works: tuple[Callable[[], object], ...] = (
            self._decode,
            self._warp_images,
            self._warp_labels,
            self._colour,
            self._collate,
        )
        times = medians(interleaved(dict(zip(STAGES, works, strict=True)), repeats))
        return {name: 1000 * seconds / len(self._images) for name, seconds in times.items()}

    def _decode(self) -> object:
        for index in self._images:
            self._view.dataset[index]
        return None

    def _warp_images(self) -> object:
        return [geometry.image(sample.image) for sample, geometry in self._pairs]

    def _warp_labels(self) -> object:
        return [self._view.warp_labels(sample, geometry) for sample, geometry in self._pairs]

    def _colour(self) -> object:
        rng, every = np.random.default_rng(0), self._view.recolour
        return [recolour(image, rng) for image in self._warped for recolour in every]

    def _collate(self) -> object:
        collate, starts = Collate(self._view.tasks), range(0, len(self._items), BATCH)
        return [collate(self._items[start : start + BATCH]) for start in starts]
