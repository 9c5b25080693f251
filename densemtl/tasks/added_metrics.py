"""Validation of the metrics that users add to a task, before any image is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from densemtl.errors import ConfigError
from densemtl.metrics.create import create_metric, get_metric, list_values
from densemtl.metrics.protocols.base import MetricSpec
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.host_classes import find_class_ids, find_host
from densemtl.types import ProtocolName

if TYPE_CHECKING:  # torchmetrics is slow to import, and predictions need no metrics
    from densemtl.metrics.base import TaskMetric

IMAGES = "images"
"""Name of the number of labeled images, which every task reports in addition to its metrics."""

OCCURRING_IDS = "occurring_ids"
"""Name of the number of ids that occur in the labels, which tasks with ids report in addition."""

SIZE = (4, 4)
"""(height, width) of the image of ignored pixels on which a metric is tested."""


def metric_errors(task: Task, protocol: ProtocolName) -> Iterator[str]:
    """Find the added metrics that do not fit a task.

    Args:
        task: task with the metrics that the user added.
        protocol: name of the protocol, which defines the other metrics of the task.

    Yields:
        One error message per metric that does not fit, starting with its configuration key.

    Raises:
        ConfigError: if the protocol does not score the task.

    Example:
        >>> from densemtl.metrics.protocols.base import MetricSpec
        >>> from densemtl.tasks.added_metrics import metric_errors
        >>> from densemtl.tasks.depth import Depth
        >>> task = Depth("depth")
        >>> task.added_metrics = (MetricSpec("regression"),)
        >>> list(metric_errors(task, "survey"))
        ["metrics.0: 'regression' computes 'rmse', which the task already has; remove one of them"]
    """
    task.get_primary_metric(protocol)
    if not task.added_metrics:
        return
    task_metrics = [task.make_metric(protocol), task.make_final_metric(protocol)]
    used_names = {
        IMAGES,
        OCCURRING_IDS,
        *(name for metric in task_metrics if metric for name in list_values(metric)),
    }
    for index, spec in enumerate(task.added_metrics):
        where = f"metrics.{index}"
        try:
            metric = create_metric(spec, task.metric_arguments(protocol))
            names = _try_metric(metric, task)
        except Exception as error:  # a custom metric may raise anything
            reason = " ".join(str(error).split())[:200]
            kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
            yield f"{where}: {spec.name!r} cannot score {task.name!r}: {kind}{reason}"
            continue
        duplicates = sorted(used_names.intersection(names))
        if duplicates:
            yield (
                f"{where}: {spec.name!r} computes {duplicates[0]!r}, which the task already has; "
                "remove one of them"
            )
        used_names.update(names)


def find_other_classes(tasks: Sequence[Task]) -> None:
    """Replace the names of classes of other tasks in the options of added metrics by ids.

    Args:
        tasks: all tasks that are evaluated; their added metrics are changed.

    Raises:
        ConfigError: if a metric needs another task or class that does not exist, or does not fit.
    """
    for number, task in enumerate(tasks):
        task.added_metrics = tuple(
            _resolve(spec, task, tasks, f"tasks.{number}.metrics.{index}")
            if _needs_other_task(spec)
            else spec
            for index, spec in enumerate(task.added_metrics)
        )


def _needs_other_task(spec: MetricSpec) -> bool:
    from densemtl.metrics.base import CrossTaskMetric

    try:
        return issubclass(get_metric(spec.name), CrossTaskMetric)
    except ConfigError:  # not a metric, which is an error of `metric_errors`
        return False


def _resolve(spec: MetricSpec, task: Task, tasks: Sequence[Task], path: str) -> MetricSpec:
    if not isinstance(task, CategoricalTask) and not task.has_validity:
        raise ConfigError(
            f"{path}: {spec.name!r} needs classes, a binary map or the option entire_space of the "
            "task; remove it"
        )
    host = find_host(spec.options["of"], task, tasks, path)
    ids = find_class_ids(spec.options["classes"], host, path)
    return spec._replace(options={**spec.options, "classes": tuple(sorted(ids))})


def _try_metric(metric: TaskMetric, task: Task) -> list[str]:
    """Update a metric with an image without valid pixels; return the names of its values."""
    target = torch.from_numpy(task.make_empty_label(SIZE))[None]
    if target.is_floating_point():
        target = target.unsqueeze(1) if target.ndim == 3 else target.permute(0, 3, 1, 2)
    metric.update(task.decode(torch.zeros(1, task.channels, *SIZE)), target)
    return list(metric.compute_dict())
