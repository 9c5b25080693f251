"""What every protocol states: which metrics score each kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


class MetricSpec(NamedTuple):
    """A metric by name, with its options.

    Attributes:
        name: of a file in `densemtl/metrics`, or `package.module:Class`.
        options: for the keyword-only parameters of its constructor.
    """

    name: str
    options: Mapping[str, Any] = {}


class TaskScoring(NamedTuple):
    """How one kind of task is scored.

    Attributes:
        metric: computed at every validation.
        primary: name of the value that Delta_m reads.
        final_metric: too slow for every validation, so computed for the best weights alone.
        selection: name of the value of `metric` that selects the best weights; None for `primary`.
    """

    metric: MetricSpec
    primary: str
    final_metric: MetricSpec | None = None
    selection: str | None = None


class ScoringProtocol:
    """Subclasses set `tasks`. Nothing here imports a metric: names stand for them.

    Attributes:
        tasks: {task: its scoring}; a task that is left out is scored as the task that it is a
            subclass of. Tasks of your own stand under `package.module:Class`.
    """

    tasks: ClassVar[Mapping[str, TaskScoring]]
