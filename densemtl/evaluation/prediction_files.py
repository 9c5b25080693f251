"""Reading and writing of predictions as files DIR/TASK/IMAGE.SUFFIX.

    kind          written format               further formats that are read
    classes       PNG, 8-bit class ids         PNG with a palette; NPY, MAT with integers
    binary        NPY, float32                 8-bit or 16-bit PNG, v / max
    depth         NPY, float32 in meters       16-bit PNG and other integers, in millimeters
    unit vectors  NPY, float32                 8-bit or 16-bit PNG, 2 v / max - 1
    regression    NPY, float32                 any numbers, in the unit of the target

All maps have the original image size. If several files have the same name, .npy is preferred over
.png and .png over .mat. Files that are written have the same scores when they are read. For this
reason probabilities are not stored as 8-bit images: in flat maps many probabilities are close to a
threshold, so that rounding would change the thinned lines.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densemtl.errors import DataError
from densemtl.evaluation.prediction_formats import PredictionMap, ReadOptions, decode_array
from densemtl.io import arrays
from densemtl.io.writers import write_array, write_image
from densemtl.ops.layouts import to_tensor
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.classification import Classification
from densemtl.types import Size

SUFFIXES = (".npy", ".png", ".mat")

FOLDER_ALIASES = {"saliency": "sal"}
"""{task: name of its folder in published code}."""


def write_prediction(folder: Path, task: Task, name: str, prediction: PredictionMap) -> None:
    """Write the prediction of an image atomically.

    Args:
        folder: output folder, which contains one folder per task.
        task: task of the prediction.
        name: image id; slashes create subfolders.
        prediction: decoded prediction at original size, in the layout of `Sample`.

    Raises:
        DataError: if the image id refers to a path outside the folder.
    """
    if isinstance(task, Classification):
        write_image(make_output_path(folder / task.name, name, ".png"), prediction.astype(np.uint8))
    else:
        write_array(
            make_output_path(folder / task.name, name, ".npy"), prediction.astype(np.float32)
        )


def make_output_path(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of an output of an image.

    Args:
        folder: output folder.
        name: image id; slashes create subfolders, so that the ids a/b_c and a_b/c do not collide.
        suffix: suffix of the file.

    Returns:
        The path inside the folder.

    Raises:
        DataError: if the image id refers to a path outside the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        raise DataError(f"image {name!r}: its prediction would lie outside {folder}; rename it")
    return folder / f"{name}{suffix}"


def find_predictions(folder: Path, task: str) -> dict[str, Path] | None:
    """Find the prediction files of a task.

    Args:
        folder: folder that contains one folder per task.
        task: name of the task.

    Returns:
        {image id: file}; None if there is no folder of the task.
    """
    names = (task, FOLDER_ALIASES.get(task, task))
    root = next((folder / name for name in names if (folder / name).is_dir()), None)
    if root is None:
        return None
    files = [file.relative_to(root) for file in root.rglob("*") if file.suffix.lower() in SUFFIXES]
    files.sort(key=lambda file: -SUFFIXES.index(file.suffix.lower()))
    visible = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    return {file.as_posix()[: -len(file.suffix)]: root / file for file in visible}


def read_prediction(file: Path, task: Task, size: Size, options: ReadOptions) -> PredictionMap:
    """Read a prediction file.

    Args:
        file: file from `find_predictions`.
        task: task of the prediction.
        size: (height, width) of the image.
        options: how the file is interpreted.

    Returns:
        The decoded prediction, in the layout of `Sample`.

    Raises:
        DataError: if the file is missing or corrupt, has another size or number of channels, or
            contains values that are NaN, infinite or out of range.
    """
    prediction = decode_array(_load_array(file, options.mat_key), task, file, options)
    return _fit_size(prediction, size, options.allow_resize, file)


def to_decoded_batch(task: Task, prediction: PredictionMap) -> Tensor:
    """Convert a prediction to a batch of one image.

    Args:
        task: task of the prediction.
        prediction: decoded prediction in the layout of `Sample`.

    Returns:
        A tensor in the layout that `Task.decode` returns, (1, H, W) or (1, C, H, W).
    """
    if isinstance(task, CategoricalTask):
        return torch.from_numpy(prediction)[None]
    return to_tensor(prediction[None])


def _load_array(file: Path, key: str | None) -> NDArray[Any]:
    if file.suffix.lower() != ".mat":
        return arrays.read_array(file)
    variables: dict[str, NDArray[Any]] = {
        name: value for name, value in arrays.read_mat(file).items() if _is_map(value)
    }
    if key is not None and key in variables:
        return variables[key]
    if len(variables) != 1:
        names = ", ".join(variables) or "no array"
        raise DataError(f"{file}: contains {names}; select the variable with --mat-key")
    return next(iter(variables.values()))


def _is_map(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "buif" and value.size > 1


def _fit_size(
    prediction: PredictionMap, size: Size, allow_resize: bool, file: Path
) -> PredictionMap:
    if prediction.shape[:2] == size:
        return prediction
    if not allow_resize:
        actual, expected = ("x".join(map(str, shape)) for shape in (prediction.shape[:2], size))
        raise DataError(
            f"{file}: the prediction has {actual} pixels, its image {expected}; predict at the "
            "original size, or pass --resize"
        )
    nearest = prediction.dtype.kind in "iu"
    interpolation = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(prediction, size[::-1], interpolation=interpolation))
