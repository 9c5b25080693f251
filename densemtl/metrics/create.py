"""Functions that find and create metrics and protocols by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from densemtl import registry
from densemtl.errors import ConfigError
from densemtl.metrics.protocols.base import MetricSpec, ScoringProtocol, TaskScoring

if TYPE_CHECKING:  # torchmetrics is slow to import, and predictions need no metrics
    from densemtl.metrics.base import TaskMetric

PROTOCOLS = "metrics.protocols"
"""Package of the protocols, relative to `densemtl`."""


def find_scoring(protocol: str, task: type[Any]) -> TaskScoring | None:
    """Return how a protocol scores a task.

    Args:
        protocol: name of the protocol.
        task: class of the task. If the protocol does not list it, the nearest base class that is
            listed is used.

    Returns:
        The metrics of the task, or None if the protocol does not score it.

    Raises:
        ConfigError: if there is no such protocol.

    Example:
        >>> from densemtl.metrics.create import find_scoring
        >>> from densemtl.tasks.saliency import Saliency
        >>> find_scoring("modern", Saliency).primary
        'maxF'
    """
    cls = get_protocol(protocol)
    for base in task.__mro__:
        name = registry.get_name("tasks", base)
        if name in cls.tasks:
            return cls.tasks[name]
    return None


def get_protocol(name: str) -> type[ScoringProtocol]:
    """Return the class of a protocol.

    Args:
        name: file name in `densemtl/metrics/protocols`, or `package.module:Class`.

    Returns:
        A subclass of `ScoringProtocol`.

    Raises:
        ConfigError: if there is no such protocol.
    """
    cls = registry.get_class(PROTOCOLS, name)
    if not issubclass(cls, ScoringProtocol):
        raise ConfigError(f"{name!r} is not a ScoringProtocol; name a subclass of it")
    return cls


def get_metric(name: str) -> type[TaskMetric]:
    """Return the class of a metric.

    Args:
        name: file name in `densemtl/metrics`, or `package.module:Class`.

    Returns:
        A subclass of `TaskMetric`.

    Raises:
        ConfigError: if there is no such metric.
    """
    from densemtl.metrics.base import TaskMetric

    cls = registry.get_class("metrics", name)
    if not issubclass(cls, TaskMetric):
        raise ConfigError(f"{name!r} is not a TaskMetric; name a subclass of it")
    return cls


def create_metric(spec: MetricSpec, arguments: Mapping[str, Any]) -> TaskMetric:
    """Create a metric.

    Args:
        spec: name and options of the metric.
        arguments: {parameter: value} that the task provides. Only the parameters of the metric's
            constructor are passed; options override them.

    Returns:
        A new metric.

    Raises:
        ConfigError: if there is no such metric, or a required parameter is missing.

    Example:
        >>> from densemtl.metrics.create import create_metric
        >>> from densemtl.metrics.protocols.base import MetricSpec
        >>> create_metric(MetricSpec("miou"), {"class_names": ["wall", "floor"]})
        MIoU()
    """
    cls = get_metric(spec.name)
    kwargs = {key: value for key, value in arguments.items() if registry.has_option(cls, key)}
    kwargs |= registry.parse_options(cls, spec.options)
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise ConfigError(f"{spec.name!r} does not fit this task: {error}") from error


def list_values(metric: TaskMetric) -> list[str]:
    """List the names of the values of a metric.

    Args:
        metric: a new metric, to which no batch was added.

    Returns:
        The keys of the dictionary that `compute` returns.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method", category=UserWarning)
        return list(metric.compute_dict())
