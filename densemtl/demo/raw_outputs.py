"""Predicted maps in files, exact, and as 16-bit pictures for programs that read no NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densemtl.evaluation import prediction_files
from densemtl.io.writers import write_image, write_normals
from densemtl.tasks.base import Task
from densemtl.tasks.depth import Depth
from densemtl.tasks.direction import Direction

MAX_DEPTH_M = 65.535
"""Metres, the most that 16 bits of millimetres hold; what is farther lies there."""


def write_raw_outputs(
    folder: Path, tasks: Sequence[Task], name: str, maps: Mapping[str, NDArray[np.generic]]
) -> None:
    """FOLDER/TASK/NAME as `prediction_files` stores them, so that evaluate.py reads them.

    Beside the float32 NPY, depth goes to 16-bit PNG in millimetres (0: none), and normals to
    16-bit PNG, from 0 (-1) to 65535 (1).

    Args:
        folder: holds a folder a task.
        tasks: whose maps are written.
        name: of the image.
        maps: {task: decoded prediction in a `Sample`'s layout}.

    Raises:
        DataError: the image's name leads out of the folder.
    """
    for task in tasks:
        values = maps[task.name]
        prediction_files.write_prediction(folder, task, name, values)
        picture = folder / task.name / f"{name}.png"
        if isinstance(task, Depth):
            write_image(picture, to_millimeters(values))
        elif isinstance(task, Direction) and task.channels == 3:
            write_normals(picture, values.astype(np.float32), 16)


def to_millimeters(depth: NDArray[np.generic]) -> NDArray[np.uint16]:
    """HxW metres -> uint16, rounded; 0 where unknown or not in front of the camera."""
    metres = np.nan_to_num(depth.astype(np.float64), posinf=0.0).clip(0, MAX_DEPTH_M)
    return np.rint(1000 * metres).astype(np.uint16)
