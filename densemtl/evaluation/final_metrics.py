"""Final metrics: too slow for every validation, so of the best weights alone, in processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.evaluation.evaluate import (
    PredictionCallback,
    Scores,
    TaskMetrics,
    evaluate,
    join_scores,
)
from densemtl.metrics.base import to_numpy_images
from densemtl.runtime.execution import ExecutionConfig
from densemtl.runtime.process_pool import OrderedProcessPool
from densemtl.tasks.base import Task
from densemtl.types import Batch, ProtocolName


class FinalTaskMetrics(TaskMetrics):
    """All metrics, the final ones besides; a context, for the processes that count for these.

    Args:
        tasks: those to score.
        protocol: which family of metrics.
        device: of predictions and targets.
        num_workers: processes; below 2 this one counts.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        protocol: ProtocolName,
        device: torch.device | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(tasks, protocol, device)
        metrics_by_task = {task.name: task.final_metrics(protocol) for task in tasks}
        self._final = {
            name: [metric.to(device) for metric in task_metrics]
            for name, task_metrics in metrics_by_task.items()
            if task_metrics
        }
        self._pools: dict[str, list[OrderedProcessPool[Any, Any]]] = {
            name: [
                OrderedProcessPool(metric.compute_image, metric.accumulate, num_workers)
                for metric in metrics
            ]
            for name, metrics in self._final.items()
        }

    def update(self, task: Task, prediction: Tensor, target: Tensor) -> None:
        """Add a task's decoded predictions and targets at original size."""
        super().update(task, prediction, target)
        if task.name not in self._final:
            return
        # Counts are added one by one as they arrive; torchmetrics asks for an update all the same.
        for metric in self._final[task.name]:
            metric.update(prediction[:0], target[:0])
        # Choosing by a mask copies: a prediction may lie in memory that the next image is put in.
        labelled = task.compute_valid_mask(target).flatten(1).any(1)
        pairs = zip(
            to_numpy_images(prediction[labelled]), to_numpy_images(target[labelled]), strict=True
        )
        for pair in pairs:
            for work in self._pools[task.name]:
                work.submit(pair)

    def compute(self) -> Scores:
        """Of all that was added; waits for the processes."""
        for work in chain.from_iterable(self._pools.values()):
            work.finish()
        final = {name: join_scores(metrics) for name, metrics in self._final.items()}
        return {
            name: {**final.get(name, {}), **scores} for name, scores in super().compute().items()
        }

    def __enter__(self) -> FinalTaskMetrics:
        return self

    def __exit__(self, *_: object) -> None:
        for work in chain.from_iterable(self._pools.values()):
            work.close()


def evaluate_with_final_metrics(
    model: nn.Module,
    batches: Iterable[Batch],
    tasks: Sequence[Task],
    protocol: ProtocolName,
    execution: ExecutionConfig,
    num_workers: int = 0,
    on_prediction: PredictionCallback | None = None,
) -> Scores:
    """As `evaluate`, and the final metrics besides, counted by so many processes."""
    with FinalTaskMetrics(tasks, protocol, execution.device, num_workers) as scorer:
        return evaluate(model, batches, tasks, protocol, execution, on_prediction, scorer)
