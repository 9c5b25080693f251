"""Named types of numbers in configurations, with their limits, and of paths.

Limits are defined only in type annotations. Sections of the configuration and options of components
are validated against them, the JSON schema contains them, and constructors rely on them. NaN and
infinity are always rejected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from densemtl import registry
from densemtl.errors import ConfigError
from densemtl.io.paths import parse_path
from densemtl.types import ProtocolName

T = TypeVar("T", str, Path)

UNKNOWN_HOME = "unknown_home"
"""Type of pydantic's error for a path that begins with an unknown home folder."""

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
NumPairedPixels = Annotated[int, Field(ge=2, le=MAX_INT)]  # one pixel has no pairs
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

_PROTOCOL_SCHEMA = {
    "anyOf": [
        {"type": "string", "enum": registry.list_names("metrics.protocols")},
        {"type": "string", "pattern": ":"},
    ]
}

NamedProtocol = Annotated[ProtocolName, WithJsonSchema(_PROTOCOL_SCHEMA)]
"""Name of a protocol, or `package.module:Class`."""


def _expand_home(path: T) -> T:
    if not str(path).startswith("~"):
        return path  # a URL must not be changed
    try:
        return type(path)(parse_path(path))
    except ConfigError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise PydanticCustomError(UNKNOWN_HOME, "{reason}", {"reason": reason}) from error


UserPath = Annotated[Path, AfterValidator(_expand_home)]
"""Path of a file or folder; `~` and `~user` at its start are home folders."""

CheckedPath = Annotated[Path, AfterValidator(lambda path: _expand_home(path) and path)]
"""Like `UserPath`, but not expanded, so that a saved configuration is valid for other users."""

PathText = Annotated[str, AfterValidator(_expand_home)]
"""Path or URL, or path with placeholders; `~` and `~user` at its start are home folders."""


def replace_union_errors(expected: str) -> WrapValidator:
    """Replace pydantic's errors, one for each member of a union, by a single one.

    Args:
        expected: the choices, for the message "must be {expected}".

    Returns:
        A validator for the annotation of the union.
    """

    def check(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(value)
        except ValidationError as error:
            for item in error.errors():
                if item["type"] == UNKNOWN_HOME:
                    raise PydanticCustomError(UNKNOWN_HOME, "{msg}", dict(item)) from error
            context = {"expected": expected}
            raise PydanticCustomError("one_of", "must be {expected}", context) from error

    return WrapValidator(check)
