"""Files of predicted maps: exact NPY files, and 16-bit PNG images for other programs."""

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
"""Maximum depth in meters that fits into 16 bits of millimeters; larger values are clipped."""


def write_raw_outputs(
    folder: Path, tasks: Sequence[Task], name: str, maps: Mapping[str, NDArray[np.generic]]
) -> None:
    """Write the predictions of one image to FOLDER/TASK/NAME.

    `densemtl evaluate predictions` can read these files. Class ids are stored as PNG and other maps
    as float32 NPY. In addition, depth is stored as 16-bit PNG in millimeters (0 if unknown), and
    normals as 16-bit PNG, with -1 mapped to 0 and 1 mapped to 65535.

    Args:
        folder: output folder; it contains one folder per task.
        tasks: tasks whose maps are written.
        name: name of the image, without suffix.
        maps: {task: decoded prediction}, in the layout of `Sample.targets`.

    Raises:
        DataError: if `name` leads out of the folder.
    """
    for task in tasks:
        values = maps[task.name]
        prediction_files.write_prediction(folder, task, name, values)
        png_file = folder / task.name / f"{name}.png"
        if isinstance(task, Depth):
            write_image(png_file, to_millimeters(values))
        elif isinstance(task, Direction) and task.value_channels == 3:
            write_normals(png_file, values.astype(np.float32), 16)


def to_millimeters(depth: NDArray[np.generic]) -> NDArray[np.uint16]:
    """Convert depth from meters to millimeters.

    Args:
        depth: depth in meters, shape (H, W).

    Returns:
        Rounded depth in millimeters, uint16; 0 for unknown, infinite and negative depth.

    Example:
        >>> to_millimeters(np.array([[1.2345, np.nan]])).tolist()
        [[1234, 0]]
    """
    meters = np.nan_to_num(depth.astype(np.float64), posinf=0.0).clip(0, MAX_DEPTH_M)
    millimeters: NDArray[np.uint16] = np.rint(1000 * meters).astype(np.uint16)
    return millimeters
