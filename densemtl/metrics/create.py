"""Metrics and protocols by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from densemtl import registry
from densemtl.errors import ConfigError
from densemtl.metrics.base import TaskMetric
from densemtl.metrics.protocols.base import MetricSpec, ScoringProtocol, TaskScoring

PROTOCOLS = "metrics.protocols"
"""The package of protocols."""


def find_scoring(protocol: str, task: type[Any]) -> TaskScoring | None:
    """Return how a protocol scores a task, or None if it does not.

    Args:
        protocol: its name.
        task: class of the task; the nearest of its bases that the protocol names counts.

    Raises:
        ConfigError: there is no such protocol.
    """
    cls = get_protocol(protocol)
    for base in task.__mro__:
        name = registry.get_name("tasks", base)
        if name in cls.tasks:
            return cls.tasks[name]
    return None


def get_protocol(name: str) -> type[ScoringProtocol]:
    """Return the class of a protocol.

    Raises:
        ConfigError: there is no such protocol.
    """
    cls = registry.get_class(PROTOCOLS, name)
    if not issubclass(cls, ScoringProtocol):
        raise ConfigError(f"{name!r} is not a ScoringProtocol")
    return cls


def get_metric(name: str) -> type[TaskMetric]:
    """Return the class of a metric.

    Raises:
        ConfigError: there is no such metric.
    """
    cls = registry.get_class("metrics", name)
    if not issubclass(cls, TaskMetric):
        raise ConfigError(f"{name!r} is not a TaskMetric")
    return cls


def create_metric(spec: MetricSpec, arguments: Mapping[str, Any]) -> TaskMetric:
    """Create a metric without any image in it.

    Args:
        spec: its name and options.
        arguments: {parameter: value} that the task provides; a metric gets those that its
            constructor takes, and options override them.

    Raises:
        ConfigError: there is no such metric, or it needs what is not given.
    """
    cls = get_metric(spec.name)
    kwargs = {key: value for key, value in arguments.items() if registry.has_option(cls, key)}
    kwargs |= registry.parse_options(cls, spec.options)
    try:
        return cls(**kwargs)
    except TypeError as error:
        raise ConfigError(f"{spec.name!r} does not fit this task: {error}") from error


def list_values(metric: TaskMetric) -> list[str]:
    """Return the names of the values that a new metric computes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method", category=UserWarning)
        return list(metric.compute_dict())
