"""Evaluation: every image once, at its original size, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densemtl.ops.lazy_upsampling import Coarse
from densemtl.runtime.execution import Precision
from densemtl.metrics.base import TaskMetric
from densemtl.metrics.labeled_images import LabelledImageCount
from densemtl.models.multi_task_model import DenseModel
from densemtl.tasks.added_metrics import IMAGES
from densemtl.tasks.base import Task
from densemtl.types import Batch, Frame, Predictions, ProtocolName
from densemtl.visualization.panels import to_sample_layout

Scores = dict[str, dict[str, float]]
"""{task: {metric: value}}; besides a task's own metrics "images", how many have a label."""

Keep = Callable[[Task, str, NDArray[np.generic]], None]
"""Takes (task, image's name, decoded prediction at original size, in a `Sample`'s layout)."""


def join_scores(metrics: Iterable[TaskMetric]) -> dict[str, float]:
    """Return the values of several metrics of one task."""
    return {name: value for each in metrics for name, value in each.scores().items()}


class Scorer:
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
        self._labelled = {task.name: LabelledImageCount().to(device) for task in tasks}

    def update(self, task: Task, prediction: Tensor, target: Tensor) -> None:
        """Add a task's decoded predictions and targets at original size."""
        for metric in self._metrics[task.name]:
            metric.update(prediction, target)
        self._labelled[task.name].update(task.valid(target))

    def scores(self) -> Scores:
        """Of all that was added."""
        return {
            name: {**join_scores(metrics), IMAGES: self._labelled[name].compute().item()}
            for name, metrics in self._metrics.items()
        }


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    tasks: Sequence[Task],
    protocol: ProtocolName,
    precision: Precision,
    keep: Keep | None = None,
    scorer: Scorer | None = None,
) -> Scores:
    """All metrics of all tasks over a split, final ones left out.

    Args:
        model: put into evaluation mode here, and left in it.
        batches: a split's, each image once.
        tasks: those to score.
        protocol: which family of metrics.
        precision: device, autocast type and memory layout.
        keep: is given every prediction besides, of images without a label too.
        scorer: a fresh one of the tasks, of another kind than `Scorer`.
    """
    model.eval()
    scorer = scorer or Scorer(tasks, protocol, precision.device)
    for batch in batches:
        moved = batch.to(precision.device)
        predictions = run_coarse(model, moved.image, precision)
        for task in tasks:
            _update(scorer, task, predictions, moved, keep)
    return scorer.scores()


def run_coarse(model: nn.Module, image: Tensor, precision: Precision) -> Predictions:
    """A forward pass that leaves logits at feature resolution if the model is one of ours.

    Args:
        model: any module that makes `Predictions` of an image; compiled or not.
        image: Bx3xHxW.
        precision: how it runs.
    """
    ours = isinstance(getattr(model, "_orig_mod", model), DenseModel)
    return precision.run(model, image, **({"full_size": False} if ours else {}))


def _update(
    scorer: Scorer, task: Task, predictions: Predictions, batch: Batch, keep: Keep | None
) -> None:
    """Images are restored and scored one by one, so that their maps stay in a CPU's cache."""
    targets = batch.targets[task.name].split(1)
    for row, (target, frame, name) in enumerate(zip(targets, batch.frames, batch.ids, strict=True)):
        height, width = frame.size
        prediction = decode(task, predictions, row, frame)
        scorer.update(task, prediction, target[..., :height, :width])
        if keep is not None:
            keep(task, name, to_sample_layout(prediction[0]))


def decode(task: Task, predictions: Predictions, row: int, frame: Frame) -> Tensor:
    """One image's prediction at its original size, as the task decodes it; a batch of one.

    Args:
        task: which prediction.
        predictions: of a batch, from `run_coarse`.
        row: the image's place in the batch.
        frame: its place in the network's input.
    """
    logits = predictions.final[task.name][row : row + 1]
    return task.decode_coarse(Coarse.of(logits, frame, predictions.canvas))
