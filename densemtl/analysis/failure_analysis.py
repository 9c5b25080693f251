"""Where a trained network fails: every image's score, every class's, and how sure it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from densemtl.data.base import DenseDataset
from densemtl.engine.loading import TrainedModel
from densemtl.evaluation.evaluate import Scores, evaluate
from densemtl.evaluation.prediction_files import to_decoded_batch
from densemtl.factory import build_dataset, build_eval_loader
from densemtl.metrics.calibration_error import CalibrationError
from densemtl.ops.layouts import to_tensor
from densemtl.runtime.progress_bar import track_progress
from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.types import ProtocolName, Sample, Split

MAX_CACHED_SAMPLES = 64
"""Samples kept, so that each is read once for all of its tasks."""


@dataclass
class Diagnosis:
    """Of a split.

    Attributes:
        scores: all metrics, of the whole split.
        image_scores: {task: {image: the metric that weights are chosen by, of it alone}}; images
            without a label are left out.
        calibration: of every task that gives probabilities.
    """

    scores: Scores = field(default_factory=dict)
    image_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    calibration: dict[str, CalibrationError] = field(default_factory=dict)

    def list_worst_images(self, task: Task, num_images: int) -> list[str]:
        """Names of the images with the worst scores, the worst first."""
        scores = self.image_scores.get(task.name, {})
        return sorted(scores, key=scores.__getitem__, reverse=not task.higher_is_better)[
            :num_images
        ]

    def get_class_iou(self, task: str) -> dict[str, float]:
        """{class: IoU in percent}, the worst first; classes that do not occur last, as NaN."""
        class_iou = {
            name.removeprefix("IoU/"): value
            for name, value in self.scores[task].items()
            if name.startswith("IoU/")
        }
        return dict(sorted(class_iou.items(), key=lambda item: (math.isnan(item[1]), item[1])))


class _PerImageScores:
    """Takes predictions one by one, as `evaluate` hands them on."""

    def __init__(self, dataset: DenseDataset, protocol: ProtocolName, result: Diagnosis) -> None:
        self._protocol, self._result = protocol, result
        index = {name: number for number, name in enumerate(dataset.ids)}

        @lru_cache(maxsize=MAX_CACHED_SAMPLES)
        def read(name: str) -> Sample:
            return dataset[index[name]]

        self._read = read

    def __call__(self, task: Task, name: str, prediction: NDArray[np.generic]) -> None:
        target = self._read(name).targets.get(task.name)
        if target is None:
            return
        decoded, label = to_decoded_batch(task, prediction), to_tensor(target[None])
        metric = task.make_metric(self._protocol)
        metric.update(decoded, label)
        value = metric.compute_dict()[task.get_selection_metric(self._protocol)]
        if math.isfinite(value):
            self._result.image_scores.setdefault(task.name, {})[name] = value
        if isinstance(task, Binary):
            self._result.calibration.setdefault(task.name, CalibrationError()).update(
                decoded, label
            )


def diagnose(trained: TrainedModel, split: Split) -> Diagnosis:
    """Look at every image of a split once.

    Raises:
        DataError: the data is not there, or not as expected.
    """
    experiment, tasks = trained.experiment, trained.tasks
    dataset = build_dataset(experiment, split)
    pin = trained.execution.device.type == "cuda"
    loader = build_eval_loader(experiment, dataset, tasks, pin)
    batches = track_progress(loader, len(loader), f"looking at {split}, {len(dataset)} images")
    result = Diagnosis()
    observer = _PerImageScores(dataset, experiment.protocol, result)
    result.scores = evaluate(
        trained.model, batches, tasks, experiment.protocol, trained.execution, observer
    )
    return result
