"""Readers of the files of the boundary F-measure: predicted maps and ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import DataError
from densemtl.io import arrays
from densemtl.io.label_formats import decode_probabilities
from densemtl.ops.region_boundaries import find_region_boundaries

Mask = NDArray[np.bool_]


class BoundaryPair(NamedTuple):
    """Files of one image.

    Attributes:
        prediction: file of the predicted map.
        ground_truth: file of the ground truth.
    """

    prediction: Path
    ground_truth: Path


def pair_files(
    predictions: Path, ground_truths: Path, list_file: Path | None = None
) -> list[BoundaryPair]:
    """Pair the files of two folders by their names without suffix.

    Args:
        predictions: folder of .png or .npy files.
        ground_truths: folder of .png, .npy or .mat files.
        list_file: text file with one image name per line. Only these images are paired; the folders
            may contain further files.

    Returns:
        One pair per image, sorted by name.

    Raises:
        DataError: if a folder has no such files, or an image has a file in one folder only.
    """
    sides = [(folder, _index_files(folder)) for folder in (predictions, ground_truths)]
    names = (
        arrays.read_split_list(list_file)
        if list_file
        else sorted(set(sides[0][1]) | set(sides[1][1]))
    )
    for folder, files in sides:
        missing = [name for name in names if name not in files]
        if missing:
            raise DataError(
                f"{folder}: no file for {len(missing)} of {len(names)} images, such as "
                f"{missing[0]!r}; add it, or list the images to evaluate (--list)"
            )
    return [BoundaryPair(sides[0][1][name], sides[1][1][name]) for name in sorted(names)]


def _index_files(folder: Path) -> dict[str, Path]:
    files = arrays.index_by_stem(folder)
    if not files:
        raise DataError(
            f"{folder}: no folder with {', '.join(arrays.SUPPORTED_SUFFIXES)} files; check the path"
        )
    return files


def read_pair(pair: BoundaryPair, regions: bool) -> tuple[NDArray[np.float32], list[Mask]]:
    """Read the predicted and the true boundaries of an image.

    Args:
        pair: files of the image.
        regions: see `read_ground_truths`.

    Returns:
        Probabilities and one map of boundaries per annotator, shape (H, W) each.

    Raises:
        DataError: if a file cannot be read, see `read_boundary_probabilities` and
            `read_ground_truths`, or if the sizes differ.
    """
    prediction, truths = (
        read_boundary_probabilities(pair.prediction),
        read_ground_truths(pair.ground_truth, regions),
    )
    for truth in truths:
        if truth.shape != prediction.shape:
            raise DataError(
                f"{pair.prediction}: is {prediction.shape} (height, width), but its ground truth "
                f"{pair.ground_truth} is {truth.shape}; predict at original size"
            )
    return prediction, truths


def read_boundary_probabilities(file: Path) -> NDArray[np.float32]:
    """Read a predicted map.

    Args:
        file: .png or .npy file.

    Returns:
        Probabilities in [0, 1], shape (H, W), float32.

    Raises:
        DataError: if the file is missing or corrupt, has more than one channel, or contains values
            out of range.
    """
    return decode_probabilities(arrays.read_array(file), file)


def read_ground_truths(file: Path, regions: bool = False) -> list[Mask]:
    """Read the ground truth of an image.

    A map that contains 0 and at most one other value is a map of boundaries. Any other map contains
    region ids, whose boundaries are extracted and thinned. A .mat file contains one or more
    annotators in the format of the Berkeley benchmark: a cell array `groundTruth` of structs with
    the field `Boundaries` or `Segmentation`.

    Args:
        file: image, array or .mat file.
        regions: read every map as region ids, also boundary maps, as `modern` does for NYUD-v2.

    Returns:
        One map of boundaries per annotator, shape (H, W), bool.

    Raises:
        DataError: if the file is missing, corrupt or in none of these formats.
    """
    if file.suffix.lower() == ".mat":
        maps = list(_iter_annotators(file))
    else:
        maps = [_require_2d(arrays.read_array(file), file)]
    return [_to_boundaries(array, regions) for array in maps]


def _to_boundaries(array: NDArray[Any], regions: bool) -> Mask:
    if regions or np.count_nonzero(np.unique(array)) > 1:
        return find_region_boundaries(array)
    return np.asarray(array != 0)


def _iter_annotators(file: Path) -> Iterator[NDArray[Any]]:
    cells = arrays.read_mat(file).get("groundTruth")
    if cells is None or cells.dtype != object or not cells.size:
        raise DataError(
            f"{file}: no annotators; the file needs a cell array groundTruth of structs"
        )
    for cell in cells.ravel():
        fields = cell.dtype.names or ()
        name = next((name for name in ("Boundaries", "Segmentation") if name in fields), None)
        if name is None:
            raise DataError(
                f"{file}: an annotator has neither Boundaries nor Segmentation; add one of the two"
            )
        yield _require_2d(np.asarray(cell[name].item()), file)


def _require_2d(array: NDArray[Any], file: Path) -> NDArray[Any]:
    array = arrays.to_channels_last(array)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        raise DataError(f"{file}: needs one number per pixel, found {array.dtype} {array.shape}")
    return array
