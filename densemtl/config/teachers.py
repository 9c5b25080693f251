"""Configuration of teachers, whose predictions replace missing training labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from densemtl.config.constraints import UnitInterval, UserPath
from densemtl.config.sections import Section


class TeacherConfig(Section):
    """Trained model whose predictions replace missing training labels of a task."""

    run: UserPath
    """Run folder or weights file of the model, which may predict further tasks."""
    task: str | None = None
    """Name of the task in that run; by default the same."""
    threshold: UnitInterval | None = None
    """Smallest probability of a predicted class; pixels below are ignored. 0.5 by default; only for
    tasks with classes, and binary ones, where it is the probability of 0 or 1."""
    trust_custom_code: bool = False
    """Whether the run may name custom classes, `package.module:Class`, which are imported."""
    weights_hash: str | None = None
    """Hash of the weights, which a run saves in order to be resumed with the same ones."""


def _wrap_run(value: Any) -> Any:
    """Convert a path to the section of a teacher."""
    return {"run": value} if isinstance(value, str | Path) else value


_Teacher = Annotated[
    TeacherConfig, BeforeValidator(_wrap_run, json_schema_input_type=Path | TeacherConfig)
]

Teachers = Annotated[
    dict[str, _Teacher],
    BeforeValidator(
        lambda value: {} if value == "none" else value,
        json_schema_input_type=Literal["none"] | dict[str, _Teacher],
    ),
]
"""{task: teacher}, where a path is accepted instead of a section; or none."""
