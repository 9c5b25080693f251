"""Base class of protocols, which state the metrics of each kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


class MetricSpec(NamedTuple):
    """Name and options of a metric.

    Attributes:
        name: file name in `densemtl/metrics`, or `package.module:Class`.
        options: {keyword-only parameter of the constructor: value}.
    """

    name: str
    options: Mapping[str, Any] = {}


class TaskScoring(NamedTuple):
    """Metrics of one kind of task.

    Attributes:
        metric: metric that is computed at every validation.
        primary: name of the value that Delta_m compares.
        final_metric: metric that is too slow for every validation and is computed only for the
            best weights.
        selection: name of the value of `metric` that selects the best weights; None for `primary`.
    """

    metric: MetricSpec
    primary: str
    final_metric: MetricSpec | None = None
    selection: str | None = None


class ScoringProtocol:
    """Base class of protocols. Subclasses set `tasks`.

    A protocol names metrics instead of importing them, so that importing a protocol is fast.

    Attributes:
        tasks: {task: its metrics}. Keys are file names in `densemtl/tasks`, or
            `package.module:Class` for custom tasks. A task that is not listed is scored like its
            nearest listed base class.

    Example:
        >>> from densemtl.metrics.protocols.base import MetricSpec, TaskScoring
        >>> from densemtl.metrics.protocols.survey import Survey
        >>> class MeanDepthError(Survey):
        ...     tasks = {
        ...         **Survey.tasks,
        ...         "depth": TaskScoring(MetricSpec("regression"), primary="mae"),
        ...     }
        >>> MeanDepthError.tasks["depth"].primary
        'mae'
    """

    tasks: ClassVar[Mapping[str, TaskScoring]]
