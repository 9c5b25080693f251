"""Named types of numbers in configurations, with their limits.

Limits are defined only in type annotations. Sections of the configuration and options of components
are validated against them, the JSON schema contains them, and constructors rely on them. NaN and
infinity are always rejected.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MAX_INT = 2**31 - 1
"""Maximum of integers."""

MAX_FLOAT = 1e15
"""Maximum of floats; the product of two still fits into single precision."""

MAX_IMAGE_SIDE = 2**14
"""Maximum height and width of images in pixels."""

UnitInterval = Annotated[float, Field(ge=0, le=1)]
PositiveUnitInterval = Annotated[float, Field(gt=0, le=1)]
OpenUnitInterval = Annotated[float, Field(gt=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0, le=MAX_FLOAT)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=MAX_FLOAT)]

PositiveInt = Annotated[int, Field(ge=1, le=MAX_INT)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MAX_INT)]
SmallPositiveInt = Annotated[int, Field(ge=1, le=1000)]
SmallNonNegativeInt = Annotated[int, Field(ge=0, le=1000)]
"""Number of modules, in parallel or in sequence."""

NumChannels = Annotated[int, Field(ge=1, le=2**14)]
"""Number of channels of a feature map."""

ImageSide = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIDE)]
"""Height or width in pixels."""

Byte = Annotated[int, Field(ge=0, le=255)]

ClassNames = Annotated[list[str], Field(min_length=1, max_length=255)]
"""Names in the order of class ids; id 255 is the ignore index."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Seed of random number generators, below the maximum that PyTorch accepts."""
