"""Evaluation with final metrics, which are too slow for every validation.

They are computed only for the best weights, in worker processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.evaluation.evaluate import PredictionCallback, evaluate
from densemtl.evaluation.scores import Scores, TaskSets, join_scores
from densemtl.evaluation.task_metrics import MetricKey, TaskMetrics
from densemtl.metrics.base import to_numpy_images
from densemtl.runtime.execution import ExecutionConfig
from densemtl.runtime.process_pool import OrderedProcessPool
from densemtl.tasks.base import Task
from densemtl.types import Batch, ProtocolName


class FinalTaskMetrics(TaskMetrics):
    """Metrics of several tasks, including final metrics.

    It is a context manager, which stops the worker processes at the end.

    Args:
        tasks: tasks to evaluate.
        protocol: name of the protocol, which defines the metrics.
        device: device of predictions and targets; None for the CPU.
        num_workers: number of worker processes per final metric; below 2, everything runs in this
            process.
        task_sets: sets with labels of each task; see `DenseDataset.task_sets`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        protocol: ProtocolName,
        device: torch.device | None = None,
        num_workers: int = 0,
        task_sets: TaskSets | None = None,
    ) -> None:
        super().__init__(tasks, protocol, device, task_sets)
        self._final = {
            key: [metric.to(self.device) for metric in task.final_metrics(protocol)]
            for task in tasks
            for key in self._keys[task.name]
        }
        self._pools: dict[MetricKey, list[OrderedProcessPool[Any, Any]]] = {
            key: [
                OrderedProcessPool(metric.compute_image, metric.accumulate, num_workers)
                for metric in metrics
            ]
            for key, metrics in self._final.items()
        }

    def _update_metrics(
        self,
        key: MetricKey,
        prediction: Tensor,
        masked: Tensor | None,
        target: Tensor,
        valid: Tensor,
    ) -> None:
        super()._update_metrics(key, prediction, masked, target, valid)
        if not self._final[key]:
            return
        # The counts are added by `accumulate`. The empty update prevents a warning of torchmetrics
        # that `compute` was called before `update`.
        for metric in self._final[key]:
            metric.update(prediction[:0], target[:0])
        # Indexing by a mask copies the prediction, whose memory may be reused for the next image.
        labeled = valid.flatten(1).any(1)
        pairs = zip(
            to_numpy_images(prediction[labeled]), to_numpy_images(target[labeled]), strict=True
        )
        for pair in pairs:
            for pool in self._pools[key]:
                pool.submit(pair)

    def compute(self) -> Scores:
        """Wait for the worker processes and compute the metrics over all batches.

        Returns:
            {task: {metric: value}}.
        """
        for pool in chain.from_iterable(self._pools.values()):
            pool.finish()
        return super().compute()

    def _compute_metrics(self, key: MetricKey) -> dict[str, float]:
        return {**join_scores(self._final[key]), **super()._compute_metrics(key)}

    def __enter__(self) -> FinalTaskMetrics:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in chain.from_iterable(self._pools.values()):
            pool.close()


def evaluate_with_final_metrics(
    model: nn.Module,
    batches: Iterable[Batch],
    tasks: Sequence[Task],
    protocol: ProtocolName,
    execution: ExecutionConfig,
    num_workers: int = 0,
    on_prediction: PredictionCallback | None = None,
    task_sets: TaskSets | None = None,
) -> Scores:
    """Evaluate a model on a split, including final metrics.

    Args:
        model: model that returns `Predictions`. It is switched to evaluation mode and remains in
            it.
        batches: batches that contain each image of the split once.
        tasks: tasks to evaluate.
        protocol: name of the protocol, which defines the metrics.
        execution: device, autocast dtype and memory layout.
        num_workers: number of worker processes per final metric; below 2, everything runs in this
            process.
        on_prediction: function that is called with each prediction, also for images without label.
        task_sets: sets with labels of each task; see `DenseDataset.task_sets`.

    Returns:
        {task: {metric: value}}.
    """
    with FinalTaskMetrics(tasks, protocol, execution.device, num_workers, task_sets) as metrics:
        return evaluate(model, batches, tasks, protocol, execution, on_prediction, metrics)
