"""Option `entire_space` of tasks that exist only in a part of the image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from densemtl.config.constraints import Byte, replace_union_errors
from densemtl.config.sections import Section

HostClass = Annotated[str | Byte, replace_union_errors("the name or the id of a class")]

ClassList = Annotated[tuple[HostClass, ...], Field(min_length=1, max_length=255)]


class EntireSpaceConfig(Section):
    """Gate of the classes of a task, except the first class, which stands for a closed gate."""

    of: str
    """Task that has the classes for which the gate is open, such as `semseg`."""
    classes: ClassList
    """Names or ids of these classes, such as `[person]`."""
    gate: Literal["host", "separate"] = "host"
    """Probability of the gate: that of the classes in the prediction of the other task (`host`), or
    a logit of its own (`separate`)."""
    detach: bool = False
    """Whether the gradient of the task does not change the logits of the other task."""


class ValidRegionConfig(Section):
    """Validity of the values of a task, the probability that a value exists at a pixel."""

    of: str | None = None
    """Task that has the classes on which values exist, such as `semseg`; null for none."""
    classes: Annotated[tuple[HostClass, ...], Field(max_length=255)] = ()
    """Names or ids of these classes, such as `[person]`."""
    gate: Literal["host", "separate"] = "host"
    """Validity: the probability of the classes in the prediction of the other task (`host`), or
    that of a logit of its own (`separate`)."""
    detach: bool = False
    """Whether the gradient of the task does not change the logits of the other task."""
