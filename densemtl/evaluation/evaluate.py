"""Evaluation: every image once, at its original size, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densemtl.metrics.base import TaskMetric
from densemtl.metrics.labeled_images import LabelledImageCount
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.layouts import to_hwc
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.added_metrics import IMAGES
from densemtl.tasks.base import Task
from densemtl.types import Batch, ImagePlacement, Predictions, ProtocolName

Scores = dict[str, dict[str, float]]
"""{task: {metric: value}}; besides a task's own metrics "images", how many have a label."""

PredictionCallback = Callable[[Task, str, NDArray[np.generic]], None]
"""Takes (task, image's name, decoded prediction at original size, in a `Sample`'s layout)."""


def join_scores(metrics: Iterable[TaskMetric]) -> dict[str, float]:
    """Return the values of several metrics of one task."""
    return {name: value for metric in metrics for name, value in metric.compute_dict().items()}


class TaskMetrics:
    """The metrics of several tasks.

    Args:
        tasks: those to score.
        protocol: which family of metrics.
        device: of predictions and targets.
    """

    def __init__(
        self, tasks: Sequence[Task], protocol: ProtocolName, device: torch.device | None = None
    ) -> None:
        self._metrics = {
            task.name: [metric.to(device) for metric in task.metrics(protocol)] for task in tasks
        }
        self._image_counts = {task.name: LabelledImageCount().to(device) for task in tasks}

    def update(self, task: Task, prediction: Tensor, target: Tensor) -> None:
        """Add a task's decoded predictions and targets at original size."""
        for metric in self._metrics[task.name]:
            metric.update(prediction, target)
        self._image_counts[task.name].update(task.compute_valid_mask(target))

    def compute(self) -> Scores:
        """Of all that was added."""
        return {
            name: {**join_scores(metrics), IMAGES: self._image_counts[name].compute().item()}
            for name, metrics in self._metrics.items()
        }


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    tasks: Sequence[Task],
    protocol: ProtocolName,
    execution: ExecutionConfig,
    on_prediction: PredictionCallback | None = None,
    metrics: TaskMetrics | None = None,
) -> Scores:
    """All metrics of all tasks over a split, final ones left out.

    Args:
        model: put into evaluation mode here, and left in it.
        batches: a split's, each image once.
        tasks: those to score.
        protocol: which family of metrics.
        execution: device, autocast type and memory layout.
        on_prediction: is given every prediction besides, of images without a label too.
        metrics: a fresh one of the tasks, of another kind than `TaskMetrics`.
    """
    model.eval()
    metrics = metrics or TaskMetrics(tasks, protocol, execution.device)
    for batch in batches:
        moved = batch.to(execution.device)
        predictions = forward_low_res(model, moved.image, execution)
        for task in tasks:
            _update_metrics(metrics, task, predictions, moved, on_prediction)
    return metrics.compute()


def forward_low_res(model: nn.Module, image: Tensor, execution: ExecutionConfig) -> Predictions:
    """A forward pass that leaves logits at feature resolution if the model is one of ours.

    Args:
        model: any module that makes `Predictions` of an image; compiled or not.
        image: Bx3xHxW.
        execution: how it runs.
    """
    ours = isinstance(getattr(model, "_orig_mod", model), MultiTaskModel)
    return execution.forward(model, image, **({"full_size": False} if ours else {}))


def _update_metrics(
    metrics: TaskMetrics,
    task: Task,
    predictions: Predictions,
    batch: Batch,
    on_prediction: PredictionCallback | None,
) -> None:
    """Images are restored and scored one by one, so that their maps stay in a CPU's cache."""
    targets = batch.targets[task.name].split(1)
    for row, (target, frame, name) in enumerate(
        zip(targets, batch.placements, batch.ids, strict=True)
    ):
        height, width = frame.size
        prediction = decode_prediction(task, predictions, row, frame)
        metrics.update(task, prediction, target[..., :height, :width])
        if on_prediction is not None:
            on_prediction(task, name, to_hwc(prediction[0]))


def decode_prediction(
    task: Task, predictions: Predictions, index: int, placement: ImagePlacement
) -> Tensor:
    """One image's prediction at its original size, as the task decodes it; a batch of one.

    Args:
        task: which prediction.
        predictions: of a batch, from `forward_low_res`.
        index: the image's place in the batch.
        placement: its place in the network's input.
    """
    logits = predictions.logits[task.name][index : index + 1]
    return task.decode_low_res(
        LazyLogits.from_placement(logits, placement, predictions.padded_size)
    )
