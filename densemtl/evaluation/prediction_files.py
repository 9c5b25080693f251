"""Predictions as files, DIR/TASK/IMAGE.SUFFIX: what this project writes, and what others write.

    kind          written                      read besides
    classes       PNG, 8-bit class ids         PNG with a palette; NPY, MAT of whole numbers
    binary        NPY, float32                 PNG of 8 or 16 bits, v / max
    depth         NPY, float32 metres          PNG of 16 bits and other integers, millimetres
    unit vectors  NPY, float32                 PNG of 8 or 16 bits, 2 v / max - 1
    regression    NPY, float32                 any numbers, in the label's unit

All are at the original image's size. Of two files of one name .npy counts before .png and .mat.
Written files give back the same scores. Probabilities are not rounded to levels, since where many
lie close to a threshold, as in flat maps, thin lines hang on the last digit.
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
from densemtl.tasks.base import CategoricalTask, Task
from densemtl.tasks.classification import Classification
from densemtl.types import Size

SUFFIXES = (".npy", ".png", ".mat")

FOLDER_ALIASES = {"saliency": "sal"}
"""What published code calls the folder of a task."""


def write_prediction(folder: Path, task: Task, name: str, prediction: PredictionMap) -> None:
    """Write an image's prediction, whole or not at all.

    Args:
        folder: holds a folder a task.
        task: whose prediction it is.
        name: of the image; its slashes make folders.
        prediction: decoded, at original size, in a `Sample`'s layout.

    Raises:
        DataError: the image's name leads out of the folder.
    """
    if isinstance(task, Classification):
        write_image(_make_path(folder / task.name, name, ".png"), prediction.astype(np.uint8))
    else:
        write_array(_make_path(folder / task.name, name, ".npy"), prediction.astype(np.float32))


def _make_path(folder: Path, name: str, suffix: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        raise DataError(f"image {name!r}: its prediction would lie outside {folder}; rename it")
    return folder / f"{name}{suffix}"


def find_predictions(folder: Path, task: str) -> dict[str, Path] | None:
    """{image name: file} of a task's predictions; None if there is no folder for them."""
    names = (task, FOLDER_ALIASES.get(task, task))
    root = next((folder / name for name in names if (folder / name).is_dir()), None)
    if root is None:
        return None
    files = [file.relative_to(root) for file in root.rglob("*") if file.suffix.lower() in SUFFIXES]
    files.sort(key=lambda file: -SUFFIXES.index(file.suffix.lower()))
    shown = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    return {file.as_posix()[: -len(file.suffix)]: root / file for file in shown}


def read_prediction(file: Path, task: Task, size: Size, options: ReadOptions) -> PredictionMap:
    """A file -> a decoded prediction of a task.

    Args:
        file: one of `find`.
        task: whose prediction it is.
        size: of the image.
        options: what the file does not say.

    Raises:
        DataError: missing, corrupt, of another size or number of channels, NaN, infinite, or out
            of range.
    """
    prediction = decode_array(_load_array(file, options.mat_key), task, file, options)
    return _fit_size(prediction, size, options.allow_resize, file)


def to_decoded_batch(task: Task, prediction: PredictionMap) -> Tensor:
    """A map in a `Sample`'s layout -> a batch of one as `Task.decode` gives it."""
    if isinstance(task, CategoricalTask):
        return torch.from_numpy(prediction)[None]
    return to_tensor(prediction[None])


def _load_array(file: Path, key: str | None) -> NDArray[Any]:
    if file.suffix.lower() != ".mat":
        return arrays.read_array(file)
    variables = {name: value for name, value in arrays.read_mat(file).items() if _is_map(value)}
    if key in variables:
        return variables[key]
    if len(variables) != 1:
        held = ", ".join(variables) or "no array"
        raise DataError(f"{file}: holds {held}; name the predictions' variable by --mat-key")
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
        advice = "predict at original size, or allow resizing by --resize"
        raise DataError(
            f"{file}: the prediction is {actual} pixels, its image {expected}; {advice}"
        )
    nearest = prediction.dtype.kind in "iu"
    how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(prediction, size[::-1], interpolation=how))
