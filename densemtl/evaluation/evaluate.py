"""Evaluation of a model, with each image at its original size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densemtl.evaluation.scores import Scores, TaskSets
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.layouts import to_hwc
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.types import Batch, ImagePlacement, ModelInput, Predictions, ProtocolName

if TYPE_CHECKING:  # torchmetrics is slow to import, and predictions need no metrics
    from densemtl.evaluation.task_metrics import TaskMetrics

PredictionCallback = Callable[[Task, str, NDArray[np.generic]], None]
"""Function of (task, image id, decoded prediction at original size in the layout of `Sample`).
Predictions have values at all pixels, also at those that are predicted to be invalid."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    tasks: Sequence[Task],
    protocol: ProtocolName,
    execution: ExecutionConfig,
    on_prediction: PredictionCallback | None = None,
    metrics: TaskMetrics | None = None,
    task_sets: TaskSets | None = None,
) -> Scores:
    """Evaluate a model on a split, without final metrics.

    Args:
        model: model that returns `Predictions`. It is switched to evaluation mode and remains in
            it.
        batches: batches that contain each image of the split once.
        tasks: tasks to evaluate.
        protocol: name of the protocol, which defines the metrics.
        execution: device, autocast dtype and memory layout.
        on_prediction: function that is called with each prediction, also for images without label.
        metrics: new metrics of the tasks; by default `TaskMetrics`.
        task_sets: sets with labels of each task, if `metrics` is not given; see
            `DenseDataset.task_sets`.

    Returns:
        {task: {metric: value}}.
    """
    from densemtl.evaluation.task_metrics import TaskMetrics

    model.eval()
    metrics = metrics or TaskMetrics(tasks, protocol, execution.device, task_sets)
    for batch in batches:
        batch_on_device = batch.to(execution.device)
        predictions = forward_low_res(model, batch_on_device.model_input, execution)
        for task in tasks:
            _update_metrics(metrics, task, predictions, batch_on_device, on_prediction)
    return metrics.compute()


def forward_low_res(model: nn.Module, image: ModelInput, execution: ExecutionConfig) -> Predictions:
    """Run a forward pass without upsampling the logits, if the model supports it.

    Args:
        model: module that maps an image to `Predictions`, compiled or not. A `MultiTaskModel`
            returns logits at feature resolution, any other module is called as usual.
        image: RGB images in 0..255, shape (B, 3, H, W), or cached features instead.
        execution: device, autocast dtype and memory layout.

    Returns:
        The predictions of the model.
    """
    supports_low_res = isinstance(getattr(model, "_orig_mod", model), MultiTaskModel)
    options = {"full_size": False} if supports_low_res else {}
    predictions: Predictions = execution.forward(model, image, **options)
    return predictions


def _update_metrics(
    metrics: TaskMetrics,
    task: Task,
    predictions: Predictions,
    batch: Batch,
    on_prediction: PredictionCallback | None,
) -> None:
    """Decode and score the images one by one, so that their maps fit into the CPU cache."""
    targets = torch.split(batch.targets[task.name], 1)
    for index, (target, placement, image_id) in enumerate(
        zip(targets, batch.placements, batch.ids, strict=True)
    ):
        is_scored = metrics.is_scored(task, image_id)
        others = [
            name for name in metrics.list_other_tasks(task, image_id) if name in batch.targets
        ]
        if not (is_scored or others or on_prediction):
            continue
        height, width = placement.size
        prediction = decode_prediction(task, predictions, index, placement)
        target = target[..., :height, :width]
        masked = mask_prediction(task, prediction, predictions, index, placement)
        if is_scored:
            metrics.update(task, prediction, target, image_id, masked)
        if others:
            other_targets = {
                name: batch.targets[name][index : index + 1, ..., :height, :width]
                for name in others
            }
            metrics.update_cross(task, masked, target, other_targets)
        if on_prediction is not None:
            on_prediction(task, image_id, to_hwc(prediction[0]))


def decode_prediction(
    task: Task, predictions: Predictions, index: int, placement: ImagePlacement
) -> Tensor:
    """Decode the prediction of one image at its original size.

    Args:
        task: task of the prediction.
        predictions: predictions of a batch, from `forward_low_res`.
        index: index of the image in the batch.
        placement: position of the image in the network input.

    Returns:
        The decoded prediction as a batch of one image, as returned by `Task.decode`.
    """
    logits = predictions.logits[task.name][index : index + 1]
    return task.decode_low_res(
        LazyLogits.from_placement(logits, placement, predictions.padded_size)
    )


def mask_prediction(
    task: Task,
    prediction: Tensor,
    predictions: Predictions,
    index: int,
    placement: ImagePlacement,
) -> Tensor:
    """Mark the pixels of a decoded prediction whose value probably does not exist.

    Args:
        task: task of the prediction.
        prediction: result of `decode_prediction`.
        predictions: predictions of the batch.
        index: index of the image in the batch.
        placement: position of the image in the network input.

    Returns:
        The result of `Task.mask_invalid`; the prediction itself if the task predicts no validity.
    """
    if not task.has_validity:
        return prediction
    validity = predictions.logits[task.name][index : index + 1, -1:]
    lazy_logits = LazyLogits.from_placement(validity, placement, predictions.padded_size)
    return task.mask_invalid(prediction, lazy_logits.upsample())
