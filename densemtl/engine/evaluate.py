"""Evaluation: every image once, at its original size, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.engine.precision import Precision
from densemtl.metrics.labelled import Labelled
from densemtl.tasks.base import Task
from densemtl.types import Batch, Frame, Predictions, ProtocolName
from densemtl.visualize import to_sample_layout

Scores = dict[str, dict[str, float]]
"""{task: {metric: value}}; besides a task's own metrics "images", how many have a label."""

Keep = Callable[[Task, str, NDArray[np.generic]], None]
"""Takes (task, image's name, decoded prediction at original size, in a `Sample`'s layout)."""


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
        self._metrics = {task.name: task.metric(protocol).to(device) for task in tasks}
        self._labelled = {task.name: Labelled().to(device) for task in tasks}

    def update(self, task: Task, prediction: Tensor, target: Tensor) -> None:
        """Add a task's decoded predictions and targets at original size."""
        self._metrics[task.name].update(prediction, target)
        self._labelled[task.name].update(task.valid(target))

    def scores(self) -> Scores:
        """Of all that was added."""
        return {
            name: {**metric.scores(), "images": self._labelled[name].compute().item()}
            for name, metric in self._metrics.items()
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
    memory = torch.empty(0, device=precision.device)
    for batch in batches:
        moved = batch.to(precision.device)
        predictions = precision.run(model, moved.image)
        for task in tasks:
            _update(scorer, task, predictions, moved, keep, memory)
    return scorer.scores()


def _update(
    scorer: Scorer,
    task: Task,
    predictions: Predictions,
    batch: Batch,
    keep: Keep | None,
    memory: Tensor,
) -> None:
    """Images are restored and scored one by one, so that their maps stay in a CPU's cache."""
    singles = (predictions.final[task.name].split(1), batch.targets[task.name].split(1))
    for logits, target, frame, name in zip(*singles, batch.frames, batch.ids, strict=True):
        height, width = frame.size
        prediction = task.decode(restore(logits, frame, memory))
        scorer.update(task, prediction, target[..., :height, :width])
        if keep is not None:
            keep(task, name, to_sample_layout(prediction[0].clone()))


def restore(logits: Tensor, frame: Frame, memory: Tensor | None = None) -> Tensor:
    """BxCxHxW logits at input size -> float32 logits at the original image's size.

    Padding is cut off, then a resized image's logits are resized back.

    Args:
        logits: of B images.
        frame: of all of them.
        memory: float32 of any size, may be overwritten by the result and grows to hold it. To ask
            the system for large memory at every image costs more than to interpolate.
    """
    top, left, height, width = frame.box
    inside = logits[..., top : top + height, left : left + width].float()
    if inside.shape[-2:] == frame.size:
        return inside
    if memory is None:
        return F.interpolate(inside, size=frame.size, mode="bilinear", align_corners=False)
    layout = torch.contiguous_format if inside.is_contiguous() else torch.channels_last
    out = memory.resize_((*inside.shape[:2], *frame.size), memory_format=layout)
    torch.ops.aten.upsample_bilinear2d.out(inside, frame.size, False, out=out)
    return out
