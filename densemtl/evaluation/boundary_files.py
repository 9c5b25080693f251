"""Files that the boundary F-measure is made of: predicted maps, and ground truth of any kind."""

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
    """A predicted map and the ground truth of the same image."""

    prediction: Path
    ground_truth: Path


def pair_files(
    predictions: Path, ground_truths: Path, list_file: Path | None = None
) -> list[BoundaryPair]:
    """Pair the files of two folders by their names without suffix, in the order of the names.

    Args:
        predictions: a folder of .png or .npy.
        ground_truths: a folder of .png, .npy or .mat.
        list_file: a list of images, one name a line; the folders may then hold more than these.

    Raises:
        DataError: a folder without such files, or a file without its partner.
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
                f"{missing[0]!r}; add it, or list the images to score"
            )
    return [BoundaryPair(sides[0][1][name], sides[1][1][name]) for name in sorted(names)]


def _index_files(folder: Path) -> dict[str, Path]:
    files = arrays.index_by_stem(folder)
    if not files:
        raise DataError(
            f"{folder}: no folder with files of types {', '.join(arrays.SUPPORTED_SUFFIXES)}"
        )
    return files


def read_pair(pair: BoundaryPair, regions: bool) -> tuple[NDArray[np.float32], list[Mask]]:
    """Read the probabilities and each annotator's boundaries.

    See `read_boundary_probabilities` and `read_ground_truths`.

    Raises:
        DataError: as these, or the two differ in size.
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
    """HxW float32 in 0..1 from a stored map.

    Raises:
        DataError: missing, corrupt, of more than one channel, or out of range.
    """
    return decode_probabilities(arrays.read_array(file), file)


def read_ground_truths(file: Path, regions: bool = False) -> list[Mask]:
    """One HxW map of boundaries an annotator.

    A map whose only values are 0 and at most one other holds boundaries as they are. Any other map
    holds regions, whose boundaries are found and thinned. A .mat file holds annotators as the
    Berkeley benchmark stores them: a cell array `groundTruth` of structs with Boundaries, or else
    Segmentation.

    Args:
        file: a picture, array or .mat file.
        regions: take every map for regions, boundary maps too, as `modern` does on NYUD.

    Raises:
        DataError: missing, corrupt, or nothing of this.
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
            f"{file}: holds no annotators; it needs a cell array groundTruth of structs"
        )
    for cell in cells.ravel():
        fields = cell.dtype.names or ()
        name = next((name for name in ("Boundaries", "Segmentation") if name in fields), None)
        if name is None:
            raise DataError(f"{file}: an annotator has neither Boundaries nor Segmentation")
        yield _require_2d(np.asarray(cell[name].item()), file)


def _require_2d(array: NDArray[Any], file: Path) -> NDArray[Any]:
    array = arrays.to_channels_last(array)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        raise DataError(f"{file}: needs one number a pixel, this is {array.dtype} {array.shape}")
    return array
