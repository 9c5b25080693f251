"""Configuration of one of several datasets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, field_validator
from pydantic_core import PydanticCustomError

from densemtl.config.sections import CONFLICT, AugmentConfig


def _to_mapping(value: Any) -> Any:
    """Convert a list of names to {name: name}."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return {name: name for name in value}
    return value


def _check_names(renamed: dict[str, str]) -> dict[str, str]:
    if not renamed:
        raise PydanticCustomError("empty", "list at least one task, or remove the key")
    if len(set(renamed.values())) < len(renamed):
        raise PydanticCustomError("twice", "two labels cannot have the same name")
    return renamed


TaskNames = Annotated[dict[str, str], BeforeValidator(_to_mapping), AfterValidator(_check_names)]
"""{task of the set: its name in the run}; a list of names is accepted, too."""


def _to_exceptions(value: Any) -> Any:
    """Convert a list of names to {name: {}}."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


BackgroundTasks = Annotated[dict[str, dict[str, list[str]]], BeforeValidator(_to_exceptions)]
"""{task: {label of the set: classes that are ignored}}; a list of tasks is accepted, too."""


class SetConfig(BaseModel):
    """One of several datasets; the options of the dataset are keys next to these."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """Name of the dataset, or `package.module:Class`."""
    tasks: TaskNames | None = None
    """Labels of the set that are used: a list of tasks, or {task of the set: name in the run}. By
    default all labels, under their names."""
    augment: AugmentConfig | None = None
    """Values of the section `augment` that are different for the images of this set, except
    `num_views`, which all sets share."""

    background: BackgroundTasks = {}
    """Tasks of other sets whose classes do not occur in this one, so that all pixels of its
    training images are background. A list of tasks, or {task: {label of the set: [classes]}}, where
    pixels of these classes, such as persons for a task of clothing, are ignored instead."""

    @field_validator("augment")
    @classmethod
    def _check_augment(cls, augment: AugmentConfig | None) -> AugmentConfig | None:
        if augment is not None and "num_views" in augment.model_fields_set:
            raise PydanticCustomError(
                CONFLICT, "num_views is the same for all sets: set augment.num_views instead"
            )
        return augment

    @property
    def options(self) -> dict[str, Any]:
        """Options of the dataset that were set."""
        return dict(self.model_extra or {})

    def adapt_augment(self, shared: AugmentConfig) -> AugmentConfig:
        """Return the augmentation of the images of this set.

        Args:
            shared: the section `augment` of the configuration.

        Returns:
            `shared` with the values that this set changes.
        """
        if self.augment is None:
            return shared
        changed = {key: getattr(self.augment, key) for key in self.augment.model_fields_set}
        return shared.model_copy(update=changed)
