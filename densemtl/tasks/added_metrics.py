"""Whether the metrics that a user adds to a task fit it, found out before any image is scored."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from densemtl.errors import ConfigError
from densemtl.metrics.base import TaskMetric
from densemtl.metrics.create import create_metric, list_values
from densemtl.tasks.base import Task
from densemtl.types import ProtocolName

IMAGES = "images"
"""Value that every task has besides its metrics: how many images have a label."""

SIZE = (4, 4)
"""(height, width) of the void image that a metric is tried on."""


def metric_errors(task: Task, protocol: ProtocolName) -> Iterator[str]:
    """Yield one line for each metric that does not fit.

    Args:
        task: with the metrics that the user added.
        protocol: whose metrics score the task as well.

    Raises:
        ConfigError: the protocol does not score the task.
    """
    task.get_primary_metric(protocol)
    if not task.added_metrics:
        return
    task_metrics = [task.make_metric(protocol), task.make_final_metric(protocol)]
    taken = {IMAGES, *(name for metric in task_metrics if metric for name in list_values(metric))}
    for index, spec in enumerate(task.added_metrics):
        where = f"metrics.{index}"
        try:
            metric = create_metric(spec, task.metric_arguments(protocol))
            names = _try_metric(metric, task)
        except Exception as error:  # of a user's own metric, whatever it raises
            reason = " ".join(str(error).split())[:200]
            kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
            yield f"{where}: {spec.name!r} cannot score {task.name!r}: {kind}{reason}"
            continue
        clash = sorted(taken.intersection(names))
        if clash:
            yield f"{where}: {spec.name!r} computes {clash[0]!r}, which the task has already"
        taken.update(names)


def _try_metric(metric: TaskMetric, task: Task) -> list[str]:
    """Return the names of a metric's values, after an image without a valid pixel."""
    void = torch.from_numpy(task.make_empty_label(SIZE))[None]
    if void.is_floating_point():
        void = void.unsqueeze(1) if void.ndim == 3 else void.permute(0, 3, 1, 2)
    metric.update(task.decode(torch.zeros(1, task.channels, *SIZE)), void)
    return list(metric.compute_dict())
