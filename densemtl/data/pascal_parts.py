"""Body parts from the annotations of PASCAL-Part (Chen et al., CVPR 2014)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl.data import files
from densemtl.data.pascal_facts import PART_OF_NAME, PERSON
from densemtl.errors import DataError


def read_parts(file: Path) -> NDArray[np.uint8] | None:
    """HxW uint8, 0 background, 1..6 parts of all people; None if the image shows none.

    Raises:
        DataError: missing, corrupt, or no annotation of PASCAL-Part.
    """
    try:
        objects = files.read_mat(file)["anno"][0, 0]["objects"].ravel()
        people = [found for found in objects if int(found["class_ind"].item()) == PERSON]
        return _draw(people) if people else None
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{file}: not a PASCAL-Part annotation ({error!r})") from error


def _draw(people: list[Any]) -> NDArray[np.uint8]:
    parts = np.zeros(people[0]["mask"].shape, np.uint8)
    for person in people:
        for part in person["parts"].ravel():
            parts[part["mask"] > 0] = PART_OF_NAME[str(part["part_name"].item())]
    return parts
