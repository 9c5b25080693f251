"""Configuration of the prior that relates the layers of tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from densemtl.config.constraints import NonNegativeFloat, PositiveInt
from densemtl.config.sections import Section


class RelationshipConfig(Section):
    """Prior that relates the layers of tasks, whose correlations are learned."""

    weight: NonNegativeFloat = 0.1
    """Weight of the penalty, which is divided by the number of weights of each layer."""
    every: PositiveInt = 100
    """Number of steps between updates of the correlations."""
    update: Annotated[
        tuple[Literal["task", "output", "input"], ...], Field(min_length=1, max_length=3)
    ] = ("task",)
    """Correlations to learn: of the tasks, and of the outputs and the inputs of a layer. Layers
    with more than 1024 inputs per output have none of the inputs."""
