"""Configuration of a component: its name and its options."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from densemtl.config.constraints import NonNegativeFloat


class ComponentConfig(BaseModel):
    """Name and options of a component.

    Options are keys next to `name`, for example `{name: fpn, width: 128}`.
    """

    model_config = ConfigDict(
        extra="allow", frozen=True, use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )

    name: str
    """Name of the component, or `package.module:Class`."""

    @property
    def options(self) -> dict[str, Any]:
        """Options that were set, without the name."""
        return dict(self.model_extra or {})


class ListedComponentConfig(ComponentConfig):
    """Component in a list: a name, or `{name: .., option: ..}`."""

    @model_validator(mode="before")
    @classmethod
    def _wrap_plain_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class TaskConfig(ListedComponentConfig):
    """Task; a custom name requires a `kind`."""

    kind: str | None = None
    """Kind of the task; by default, the kind that the dataset states, or else the name."""
    metrics: tuple[ListedComponentConfig, ...] = ()
    """Metrics in addition to those of the protocol: names, or `{name: .., option: ..}`."""
    computed_class_weights: dict[str, tuple[NonNegativeFloat, ...]] = {}
    """Class weights that a run computed from its training labels and saves, `{method: weights}`."""

    def without_other_tasks(self, available: Collection[str] = ()) -> TaskConfig:
        """Remove `entire_space` and metrics if their key `of` names a task that is not available.

        Args:
            available: names of the available tasks.

        Returns:
            The task without them.
        """
        values = self.model_dump()
        if not select_available([values.get("entire_space")], available):
            values.pop("entire_space")
        values["metrics"] = select_available(values["metrics"], available)
        return TaskConfig.model_validate(values)


def select_available(values: Iterable[Any], available: Collection[str]) -> list[Any]:
    """Select the values whose key `of`, if they have one, names an available task.

    Args:
        values: values of a configuration, such as the metrics of a task.
        available: names of the available tasks.

    Returns:
        The selected values.

    Example:
        >>> select_available(["mIoU", {"name": "outside", "of": "semseg"}], ["depth"])
        ['mIoU']
    """
    tasks = (None, *available)
    return [value for value in values if not isinstance(value, Mapping) or value.get("of") in tasks]
