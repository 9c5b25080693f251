"""Failure analysis of a trained model: scores of images and classes, and calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from densemtl.data.base import DenseDataset
from densemtl.engine.loading import TrainedModel
from densemtl.evaluation.evaluate import evaluate
from densemtl.evaluation.prediction_files import to_decoded_batch
from densemtl.evaluation.scores import Scores
from densemtl.factory import build_dataset, build_eval_loader
from densemtl.metrics.calibration_error import CalibrationError
from densemtl.ops.layouts import to_tensor
from densemtl.runtime.progress_bar import track_progress
from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.types import ProtocolName, Sample, Split

MAX_CACHED_SAMPLES = 64
"""Number of cached samples, so that each sample is read once for all of its tasks."""


@dataclass
class Diagnosis:
    """Scores and calibration of a model on a split.

    Attributes:
        scores: {task: {metric: value}} over the whole split.
        image_scores: {task: {image id: selection metric of this image}}; images without a label
            or without a finite score are omitted.
        calibration: {task: calibration error} of every task that predicts probabilities.
    """

    scores: Scores = field(default_factory=dict)
    image_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    calibration: dict[str, CalibrationError] = field(default_factory=dict)

    def list_worst_images(self, task: Task, num_images: int) -> list[str]:
        """Return the images with the worst scores.

        Args:
            task: a task of the model.
            num_images: maximum number of images.

        Returns:
            Image ids, the worst image first.
        """
        scores = self.image_scores.get(task.name, {})
        return sorted(scores, key=scores.__getitem__, reverse=not task.higher_is_better)[
            :num_images
        ]

    def get_class_iou(self, task: str) -> dict[str, float]:
        """Return the IoU of each class.

        Args:
            task: name of a task.

        Returns:
            {class: IoU in percent}, the worst class first. Classes that do not occur are NaN and
            come last. Empty if the task has no classes.
        """
        class_iou = {
            name.removeprefix("IoU/"): value
            for name, value in self.scores[task].items()
            if name.startswith("IoU/")
        }
        return dict(sorted(class_iou.items(), key=lambda item: (math.isnan(item[1]), item[1])))


class _PerImageScores:
    """Callback of `evaluate` that scores each prediction on its own."""

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
    """Score every image of a split on its own, and the split as a whole, in one pass.

    Args:
        trained: a trained model and its configuration.
        split: the split to evaluate, "train" or "val".

    Returns:
        The scores and the calibration.

    Raises:
        DataError: if files of the dataset are missing or invalid.
    """
    experiment, tasks = trained.experiment, trained.tasks
    dataset = build_dataset(experiment, split)
    pin = trained.execution.device.type == "cuda"
    loader = build_eval_loader(experiment, dataset, tasks, pin)
    batches = track_progress(loader, len(loader), f"diagnosing {split}, {len(dataset)} images")
    result = Diagnosis()
    observer = _PerImageScores(dataset, experiment.protocol, result)
    result.scores = evaluate(
        trained.model,
        batches,
        tasks,
        experiment.protocol,
        trained.execution,
        observer,
        task_sets=dataset.task_sets,
    )
    return result
