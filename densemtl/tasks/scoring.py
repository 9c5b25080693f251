"""Base class that creates the metrics of a task."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar, cast

from densemtl.errors import ConfigError
from densemtl.metrics.create import create_metric, find_scoring
from densemtl.metrics.protocols.base import MetricSpec, TaskScoring
from densemtl.types import ProtocolName

if TYPE_CHECKING:  # torchmetrics is slow to import, and predictions need no metrics
    from densemtl.metrics.base import ImageMetric, TaskMetric


class ScoredTask(ABC):
    """Base class of tasks, with the metrics of each protocol and those that the user added.

    Args:
        name: name of the task in the run, and name of its labels in the dataset.

    Attributes:
        name: name of the task.
        higher_is_better: whether higher values of the primary metric are better, in every protocol.
        added_metrics: metrics that the user added to those of the protocol.
    """

    higher_is_better: ClassVar[bool]
    added_metrics: tuple[MetricSpec, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def make_metric(self, protocol: ProtocolName) -> TaskMetric:
        """Create the metric that a protocol computes at every validation.

        Args:
            protocol: name of the protocol.

        Returns:
            A new metric, to be updated with decoded predictions and targets.

        Raises:
            ConfigError: if the protocol does not score the task.
        """
        return self._create(self._require_scoring(protocol).metric, protocol)

    def make_final_metric(self, protocol: ProtocolName) -> ImageMetric | None:
        """Create the metric that a protocol computes only for the best weights.

        Args:
            protocol: name of the protocol.

        Returns:
            A new metric; None if the protocol defines no final metric.
        """
        scoring = find_scoring(protocol, type(self))
        if scoring is None or scoring.final_metric is None:
            return None
        return cast("ImageMetric", self._create(scoring.final_metric, protocol))

    def get_primary_metric(self, protocol: ProtocolName) -> str:
        """Return the name of the value that Delta_m compares.

        Args:
            protocol: name of the protocol.

        Returns:
            Name of a value of the final metric if there is one, otherwise of the metric.

        Raises:
            ConfigError: if the protocol does not score the task.
        """
        return self._require_scoring(protocol).primary

    def get_selection_metric(self, protocol: ProtocolName) -> str:
        """Return the name of the value that selects the best weights.

        Args:
            protocol: name of the protocol.

        Returns:
            Name of a value of the metric that is computed at every validation.
        """
        scoring = find_scoring(protocol, type(self))
        return (scoring.selection if scoring else None) or self.get_primary_metric(protocol)

    def metrics(self, protocol: ProtocolName) -> list[TaskMetric]:
        """Create the metrics of every validation, including those that the user added.

        Args:
            protocol: name of the protocol.

        Returns:
            New metrics.
        """
        from densemtl.metrics.base import ImageMetric

        added = (self._create(spec, protocol) for spec in self.added_metrics)
        return [self.make_metric(protocol), *(m for m in added if not isinstance(m, ImageMetric))]

    def final_metrics(self, protocol: ProtocolName) -> list[ImageMetric]:
        """Create the metrics of the best weights, including slow ones that the user added.

        Args:
            protocol: name of the protocol.

        Returns:
            New metrics.
        """
        from densemtl.metrics.base import ImageMetric

        final = self.make_final_metric(protocol)
        added = (self._create(spec, protocol) for spec in self.added_metrics)
        slow = [metric for metric in added if isinstance(metric, ImageMetric)]
        return slow if final is None else [final, *slow]

    def metric_arguments(self, protocol: ProtocolName) -> dict[str, Any]:
        """Return the arguments that the task provides for constructors of metrics.

        Args:
            protocol: name of the protocol.

        Returns:
            {parameter: value}. A metric gets those that its constructor takes.
        """
        return {}

    def _require_scoring(self, protocol: ProtocolName) -> TaskScoring:
        scoring = find_scoring(protocol, type(self))
        if scoring is None:
            kind = type(self).__name__
            raise ConfigError(
                f"protocol: {protocol!r} does not score {self.name!r}: add {kind} to its tasks, "
                f"or override {kind}.make_metric and {kind}.get_primary_metric"
            )
        return scoring

    def _create(self, spec: MetricSpec, protocol: ProtocolName) -> TaskMetric:
        return create_metric(spec, self.metric_arguments(protocol))
