"""Types of the options of label maps, and the encodings that use them."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from densemtl.config.constraints import MAX_FLOAT, Byte, PathText, replace_union_errors
from densemtl.config.sections import check_ordered
from densemtl.types import IGNORE_INDEX

Encoding = Literal["classes", "binary", "regression", "depth", "unit_vectors"]

DEFAULT_ENCODINGS: dict[str, Encoding] = {
    "classification": "classes",
    "semseg": "classes",
    "human_parts": "classes",
    "binary": "binary",
    "edge": "binary",
    "saliency": "binary",
    "regression": "regression",
    "depth": "depth",
    "direction": "unit_vectors",
    "normals": "unit_vectors",
}
"""Default encoding of the label files of each kind of task."""

OPTIONS_OF_ENCODINGS: dict[str, tuple[Encoding, ...]] = {
    "palette": ("classes",),
    "ignore_colors": ("classes",),
    "threshold": ("binary",),
    "offset": ("regression", "depth"),
    "inverse": ("regression", "depth"),
    "valid_range": ("regression", "depth"),
}
"""{option: the encodings that use it}; with other encodings it is an error."""

StoredId = Annotated[int, Field(ge=-(2**31), lt=2**32)]
"""Id in the label files, of any integer type of at most 32 bits."""

AnyFloat = Annotated[float, Field(ge=-math.inf, le=math.inf, allow_inf_nan=True)]
"""Float that may be infinite, but not NaN."""

StoredValue = Annotated[
    StoredId | AnyFloat,
    replace_union_errors("a number, .inf or -.inf"),
]

ClassValues = Annotated[
    tuple[StoredId, ...] | dict[StoredId, Annotated[int, Field(ge=0, lt=IGNORE_INDEX)]],
    replace_union_errors("a list of stored ids, one per class, or {stored id: class}"),
]

RGB = tuple[Byte, Byte, Byte]

Palette = Annotated[
    tuple[RGB, ...] | PathText,
    replace_union_errors("a list of [R, G, B] from 0 to 255, one per class, or a text file"),
]

FiniteFloat = Annotated[float, Field(ge=-MAX_FLOAT, le=MAX_FLOAT)]

ValidRange = Annotated[tuple[AnyFloat, AnyFloat], AfterValidator(check_ordered)]

Threshold = Annotated[float, Field(ge=0, lt=1)]
"""Share of the maximum of a binary map."""
