"""What a number in a configuration may be: the named types of settings and of options.

An annotation is the one place of a limit: `settings` and `components` check by it, the JSON schema
shows it, and constructors rely on it. NaN and infinity are refused everywhere.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MAX_INT = 2**31 - 1
"""Of whatever is counted."""

MAX_FLOAT = 1e15
"""Of floats: single precision still holds the product of two."""

MAX_IMAGE_SIDE = 2**14
"""Pixels of a side: a square picture of it is the largest that is read."""

UnitInterval = Annotated[float, Field(ge=0, le=1)]
PositiveUnitInterval = Annotated[float, Field(gt=0, le=1)]
OpenUnitInterval = Annotated[float, Field(gt=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0, le=MAX_FLOAT)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=MAX_FLOAT)]

PositiveInt = Annotated[int, Field(ge=1, le=MAX_INT)]
NonNegativeInt = Annotated[int, Field(ge=0, le=MAX_INT)]
SmallPositiveInt = Annotated[int, Field(ge=1, le=1000)]
SmallNonNegativeInt = Annotated[int, Field(ge=0, le=1000)]
"""Of modules, side by side or one after the other."""

NumChannels = Annotated[int, Field(ge=1, le=2**14)]
"""Channels of a map."""

ImageSide = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIDE)]
"""Pixels."""

Byte = Annotated[int, Field(ge=0, le=255)]

ClassNames = Annotated[list[str], Field(min_length=1, max_length=255)]
"""In the order of their ids, of which 255 is void."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of random numbers; torch takes no larger one."""
