"""Where a trained network fails: every image's score, every class's, and how sure it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from densemtl.factory import build_dataset, build_eval_loader
from densemtl.data.base import DenseDataset, Split
from densemtl.data.batching import to_tensor
from densemtl.evaluation.evaluate import Scores, evaluate
from densemtl.runtime.progress_bar import watched
from densemtl.engine.loading import Loaded
from densemtl.metrics.calibration import Reliability
from densemtl.evaluation.prediction_files import to_decoded
from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.types import ProtocolName, Sample

IN_READING = 64
"""Samples kept, so that each is read once for all of its tasks."""


@dataclass
class Diagnosis:
    """Of a split.

    Attributes:
        scores: all metrics, of the whole split.
        images: {task: {image: the metric that weights are chosen by, of it alone}}; images without
            a label are left out.
        reliability: of every task that gives probabilities.
    """

    scores: Scores = field(default_factory=dict)
    images: dict[str, dict[str, float]] = field(default_factory=dict)
    reliability: dict[str, Reliability] = field(default_factory=dict)

    def worst(self, task: Task, count: int) -> list[str]:
        """Names of the images with the worst scores, the worst first."""
        scores = self.images.get(task.name, {})
        return sorted(scores, key=scores.__getitem__, reverse=not task.higher_is_better)[:count]

    def classes(self, task: str) -> dict[str, float]:
        """{class: IoU in percent}, the worst first; classes that do not occur last, as NaN."""
        found = {
            name.removeprefix("IoU/"): value
            for name, value in self.scores[task].items()
            if name.startswith("IoU/")
        }
        return dict(sorted(found.items(), key=lambda item: (math.isnan(item[1]), item[1])))


class _Observer:
    """Takes predictions one by one, as `evaluate` hands them on."""

    def __init__(self, dataset: DenseDataset, protocol: ProtocolName, result: Diagnosis) -> None:
        self._protocol, self._result = protocol, result
        index = {name: number for number, name in enumerate(dataset.ids)}

        @lru_cache(maxsize=IN_READING)
        def read(name: str) -> Sample:
            return dataset[index[name]]

        self._read = read

    def __call__(self, task: Task, name: str, prediction: NDArray[np.generic]) -> None:
        target = self._read(name).targets.get(task.name)
        if target is None:
            return
        decoded, label = to_decoded(task, prediction), to_tensor(target[None])
        metric = task.metric(self._protocol)
        metric.update(decoded, label)
        value = metric.scores()[task.selection(self._protocol)]
        if math.isfinite(value):
            self._result.images.setdefault(task.name, {})[name] = value
        if isinstance(task, Binary):
            self._result.reliability.setdefault(task.name, Reliability()).update(decoded, label)


def diagnose(loaded: Loaded, split: Split) -> Diagnosis:
    """Look at every image of a split once.

    Raises:
        DataError: the data is not there, or not as expected.
    """
    experiment, tasks = loaded.experiment, loaded.tasks
    dataset = build_dataset(experiment, split)
    pin = loaded.precision.device.type == "cuda"
    loader = build_eval_loader(experiment, dataset, tasks, pin)
    batches = watched(loader, len(loader), f"looking at {split}, {len(dataset)} images")
    result = Diagnosis()
    observer = _Observer(dataset, experiment.protocol, result)
    result.scores = evaluate(
        loaded.model, batches, tasks, experiment.protocol, loaded.precision, observer
    )
    return result
