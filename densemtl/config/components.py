"""Configuration of a component: its name and its options."""

from __future__ import annotations

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

    def without_option(self, name: str) -> TaskConfig:
        """Remove an option.

        Args:
            name: name of the option, which may be absent.

        Returns:
            The task without it.
        """
        values = self.model_dump()
        values.pop(name, None)
        return TaskConfig.model_validate(values)
