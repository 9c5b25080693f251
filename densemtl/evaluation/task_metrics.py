"""Metrics of several tasks, and of the sets of images that have labels of a task."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from densemtl.evaluation.scores import Scores, TaskSets, average_sets, join_scores
from densemtl.metrics.base import CrossTaskMetric
from densemtl.metrics.label_counts import LabeledImageCount, OccurringIdCount
from densemtl.tasks.added_metrics import IMAGES, OCCURRING_IDS
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.types import ProtocolName

MetricKey = tuple[str, str]
"""(task, set); the set is "" for a task that is not scored separately on several sets."""


class TaskMetrics:
    """Metrics of several tasks.

    Args:
        tasks: tasks to evaluate.
        protocol: name of the protocol, which defines the metrics.
        device: device of predictions and targets; None for the CPU.
        task_sets: sets with labels of each task; see `DenseDataset.task_sets`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        protocol: ProtocolName,
        device: torch.device | None = None,
        task_sets: TaskSets | None = None,
    ) -> None:
        # Apple GPUs have no float64, in which the metrics are computed.
        self.device = torch.device("cpu") if device is None or device.type == "mps" else device
        self._task_sets = task_sets or {}
        self._keys = {task.name: self._list_keys(task.name) for task in tasks}
        self._metrics = {
            key: [
                metric.to(self.device)
                for metric in task.metrics(protocol)
                if not isinstance(metric, CrossTaskMetric)
            ]
            for task in tasks
            for key in self._keys[task.name]
        }
        self._cross_metrics = {
            task.name: [
                metric.to(self.device)
                for metric in task.metrics(protocol)
                if isinstance(metric, CrossTaskMetric)
            ]
            for task in tasks
        }
        self._image_counts = {key: LabeledImageCount().to(self.device) for key in self._metrics}
        self._id_counts = {
            task.name: OccurringIdCount().to(self.device)
            for task in tasks
            if isinstance(task, CategoricalTask)
        }

    def _list_keys(self, task: str) -> list[MetricKey]:
        sets = self._task_sets.get(task, ())
        return [(task, name) for name in sets] if len(sets) > 1 else [(task, "")]

    def _find_key(self, task: Task, image_id: str) -> MetricKey:
        keys = self._keys[task.name]
        return keys[0] if len(keys) == 1 else (task.name, image_id.partition("/")[0])

    def is_scored(self, task: Task, image_id: str) -> bool:
        """Return whether an image is from a set with labels of a task.

        Args:
            task: one of the tasks.
            image_id: id of the image.

        Returns:
            True for all images if they are from one set.
        """
        return self._has_labels(task.name, image_id)

    def _has_labels(self, task: str, image_id: str) -> bool:
        return not self._task_sets or image_id.partition("/")[0] in self._task_sets.get(task, ())

    def list_other_tasks(self, task: Task, image_id: str) -> list[str]:
        """List the other tasks whose labels of an image the metrics of a task need.

        Args:
            task: one of the tasks.
            image_id: id of the image.

        Returns:
            Names, without tasks that the set of the image has no labels of.
        """
        others = (metric.other_task for metric in self._cross_metrics[task.name])
        return sorted({other for other in others if self._has_labels(other, image_id)})

    def update(
        self,
        task: Task,
        prediction: Tensor,
        target: Tensor,
        image_id: str = "",
        masked: Tensor | None = None,
    ) -> None:
        """Add a batch of one task.

        Args:
            task: task of the prediction.
            prediction: decoded predictions at original size, as returned by `Task.decode`.
            target: targets at the same size.
            image_id: id of an image of the batch, whose images are all from one set.
            masked: result of `Task.mask_invalid`. If the task predicts a validity and this is None,
                metrics of the validity are not changed.
        """
        prediction, target = prediction.to(self.device), target.to(self.device)
        if masked is not None:
            masked = masked.to(self.device)
        elif not task.has_validity:
            masked = prediction
        key, valid = self._find_key(task, image_id), task.compute_valid_mask(target)
        self._image_counts[key].update(valid)
        if task.name in self._id_counts:
            self._id_counts[task.name].update(target)
        self._update_metrics(key, prediction, masked, target, valid)

    def update_cross(
        self, task: Task, prediction: Tensor, target: Tensor, others: Mapping[str, Tensor]
    ) -> None:
        """Add a batch to the metrics of a task that need the labels of other tasks.

        Args:
            task: task of the prediction.
            prediction: result of `Task.mask_invalid` at original size.
            target: targets at the same size, possibly ignored pixels only.
            others: {other task: its targets}; metrics of tasks that are missing are not changed.
        """
        prediction, target = prediction.to(self.device), target.to(self.device)
        for metric in self._cross_metrics[task.name]:
            other = others.get(metric.other_task)
            if other is not None:
                metric.update(prediction, target, other.to(self.device))

    def _update_metrics(
        self,
        key: MetricKey,
        prediction: Tensor,
        masked: Tensor | None,
        target: Tensor,
        valid: Tensor,
    ) -> None:
        for metric in self._metrics[key]:
            if not metric.takes_masked:
                metric.update(prediction, target)
            elif masked is not None:
                metric.update(masked, target)

    def compute(self) -> Scores:
        """Compute the metrics over all batches.

        Returns:
            {task: {metric: value}}.
        """
        with warnings.catch_warnings():
            # A process may have got no image of a set.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric")
            return {name: self._compute_task(name, keys) for name, keys in self._keys.items()}

    def _compute_task(self, name: str, keys: Sequence[MetricKey]) -> dict[str, float]:
        values_of_sets = {
            key[1]: {**self._compute_metrics(key), IMAGES: self._count_images(key)} for key in keys
        }
        values = values_of_sets[""] if len(keys) == 1 else average_sets(values_of_sets)
        values |= join_scores(self._cross_metrics[name])
        if name in self._id_counts:
            values[OCCURRING_IDS] = self._id_counts[name].compute().item()
        return values

    def _compute_metrics(self, key: MetricKey) -> dict[str, float]:
        return join_scores(self._metrics[key])

    def _count_images(self, key: MetricKey) -> float:
        return self._image_counts[key].compute().item()
