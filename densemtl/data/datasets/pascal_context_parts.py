"""Reader of body parts from annotations of PASCAL-Part (Chen et al., CVPR 2014)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.pascal_context_metadata import NAME_TO_PART, PERSON_CLASS
from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.types import IGNORE_INDEX


def read_human_parts(file: Path) -> NDArray[np.uint8] | None:
    """Read the body parts of all people in an image.

    Args:
        file: .mat file of PASCAL-Part with the variable `anno`.

    Returns:
        uint8 map of shape (H, W): 0 background, 1..6 parts. None if there is no person, or no
        person with annotated parts; such an image has ignored pixels only and is not evaluated.

    Raises:
        DataError: if the file is missing, corrupt or no annotation of PASCAL-Part.
    """
    try:
        objects = arrays.read_mat(file)["anno"][0, 0]["objects"].ravel()
        people = [record for record in objects if int(record["class_ind"].item()) == PERSON_CLASS]
        parts = _rasterize_parts(people) if people else None
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: not a PASCAL-Part annotation ({error!r})") from error
    return parts if parts is not None and has_parts(parts) else None


def has_parts(parts: NDArray[np.uint8]) -> bool:
    """Return whether a map of parts contains a part.

    Args:
        parts: uint8 map of shape (H, W): 0 background, 1..6 parts, 255 ignored.

    Returns:
        Whether any pixel is neither background nor ignored.
    """
    return bool(((parts > 0) & (parts != IGNORE_INDEX)).any())


def _rasterize_parts(people: list[Any]) -> NDArray[np.uint8]:
    parts = np.zeros(people[0]["mask"].shape, np.uint8)
    for person in people:
        for part in person["parts"].ravel():
            parts[part["mask"] > 0] = NAME_TO_PART[str(part["part_name"].item())]
    return parts
