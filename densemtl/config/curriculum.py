"""Configuration of a curriculum, which sets when each task is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from densemtl.config.constraints import (
    NonNegativeFloat,
    PositiveInt,
    PositiveUnitInterval,
    SmallPositiveInt,
    UnitInterval,
    replace_union_errors,
)
from densemtl.config.sections import CONFLICT, Section
from densemtl.errors import suggest

PhaseTasks = Annotated[
    Literal["all"] | SmallPositiveInt | Annotated[tuple[str, ...], Field(min_length=1)],
    replace_union_errors("all, a list of tasks, or the number of tasks to choose"),
]


class PhaseConfig(Section):
    """Part of the training in which the same tasks are trained."""

    until: PositiveUnitInterval
    """Fraction of the training steps at which the phase ends; 1 in the last phase."""
    tasks: PhaseTasks = "all"
    """Tasks that are trained: `all`, a list of names, or their number. To reach a number, tasks are
    added to those of the phase before, chosen by a probe."""


class CurriculumConfig(Section):
    """Phases of the training, in which different tasks are trained."""

    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1, max_length=100)]
    """The phases in turn, such as `[{until: 0.3, tasks: [depth]}, {until: 1}]`."""
    ramp: UnitInterval = 0.0
    """Fraction of the training steps over which the weight of a task that is added increases
    linearly to its full value."""
    anchor: NonNegativeFloat = 0.0
    """Factor of half the squared distance of the shared parameters from those at the start of a
    phase, which is added to the loss in the first half of each phase except the first one."""
    probe_steps: PositiveInt = 200
    """Number of steps for which a probe trains each task that it compares."""
    probe_distance: NonNegativeFloat = 0.1
    """Weight of the relative change of the shared parameters in the score of a probe."""

    @model_validator(mode="after")
    def _check_phases(self) -> CurriculumConfig:
        """Check that the phases are in order, and that numbers of tasks do not decrease."""
        ends = [phase.until for phase in self.phases]
        if ends[-1] != 1 or any(end <= start for start, end in pairwise(ends)):
            raise PydanticCustomError(CONFLICT, "until must increase from phase to phase, up to 1")
        count = 0
        for phase in self.phases:
            if isinstance(phase.tasks, int) and phase.tasks < count:
                raise PydanticCustomError(
                    CONFLICT,
                    "a number of tasks cannot be smaller than in the phase before; list them",
                )
            if phase.tasks != "all":
                count = phase.tasks if isinstance(phase.tasks, int) else len(phase.tasks)
        return self


def find_phase_errors(section: Any, tasks: set[str]) -> Iterator[str]:
    """Find tasks in phases that do not exist, and tasks that are in no phase.

    Args:
        section: the section `curriculum`; types may be wrong.
        tasks: names of all tasks that are learned.

    Yields:
        One line per error, which starts with the key.
    """
    phases: Any = section.get("phases") if isinstance(section, Mapping) else None
    entries = [phase for phase in phases if isinstance(phase, Mapping)] if _is_list(phases) else []
    trained: set[str] = set()
    for index, phase in enumerate(entries):
        named = phase.get("tasks", "all")
        path = f"curriculum.phases.{index}.tasks"
        if isinstance(named, int) and named > len(tasks):
            yield f"{path}: there are only {len(tasks)} tasks"
        for name in named if _is_list(named) else ():
            if name not in tasks:
                yield f"{path}: no task {str(name)!r}, {suggest(str(name), tasks)}"
        trained |= {str(name) for name in named} if _is_list(named) else tasks
    for name in sorted(tasks - trained) if entries else ():
        yield f"curriculum.phases: task {name!r} is in no phase; add it or remove the task"


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
