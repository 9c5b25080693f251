"""What a number in a configuration may be: the named types of settings and of options.

An annotation is the one place of a limit: `settings` and `components` check by it, the JSON schema
shows it, and constructors rely on it. NaN and infinity are refused everywhere.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST = 2**31 - 1
"""Of whatever is counted."""

LARGEST = 1e15
"""Of floats: single precision still holds the product of two."""

LONGEST = 2**14
"""Pixels of a side: a square picture of it is the largest that is read."""

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]

Count = Annotated[int, Field(ge=1, le=MOST)]
Whole = Annotated[int, Field(ge=0, le=MOST)]
Few = Annotated[int, Field(ge=1, le=1000)]
FewOrNone = Annotated[int, Field(ge=0, le=1000)]
"""Of modules, side by side or one after the other."""

Width = Annotated[int, Field(ge=1, le=2**14)]
"""Channels of a map."""

Side = Annotated[int, Field(ge=1, le=LONGEST)]
"""Pixels."""

Byte = Annotated[int, Field(ge=0, le=255)]

ClassNames = Annotated[list[str], Field(min_length=1, max_length=255)]
"""In the order of their ids, of which 255 is void."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of random numbers; torch takes no larger one."""
