"""Computation of the labels that teachers predict, before training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from densemtl import __version__
from densemtl.config.data_sets import MIXED, change_sets
from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.check import DataWarning
from densemtl.data.loaders import count_workers
from densemtl.data.splits import Splits
from densemtl.data.teacher_labels import FilledDataset, TeacherLabelStore
from densemtl.errors import ConfigError
from densemtl.evaluation.evaluate import forward_low_res
from densemtl.factory import get_border
from densemtl.io.paths import parse_path
from densemtl.ops.layouts import to_hwc
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.runs.missing_files import iter_missing_chunks
from densemtl.runs.teachers import TaughtTask, Teacher
from densemtl.runtime.progress_bar import print_message
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.pseudo_labels import make_pseudo_label
from densemtl.transforms.geometry import pad_to_size, stretch_to_size
from densemtl.types import ImagePlacement, Predictions, Sample

CHUNK_SIZE = 8
"""Number of images that are predicted together: always the same ones, so that labels do not depend
on which of them were cached before."""

MIN_SHARE = 0.01
"""Share of labeled pixels below which there is a warning."""

BYTES_PER_GB = 1e9

SAMPLING_KEYS, SAMPLING_KEYS_OF_SET = ("weights", "epoch_images", "one_set_per_batch"), ("augment",)
"""Options of a mixture, and of a dataset in it, that do not change images and labels."""

Item = tuple[Sample, ImagePlacement]
"""Sample whose image is the input of a teacher and whose labels are unchanged, and its placement"""


def fill_missing_labels(
    experiment: ExperimentConfig, splits: Splits, teachers: Sequence[Teacher]
) -> tuple[Splits, list[DataWarning]]:
    """Replace the missing training labels of an experiment by predictions of its teachers.

    Only images without a label of a task are filled, also if all pixels of a label are ignored.
    Validation labels are not changed. All ranks must call this function; each computes its share.

    Args:
        experiment: the experiment.
        splits: its training and validation splits.
        teachers: its teachers.

    Returns:
        The splits, and warnings about teachers whose predictions are nearly all ignored, already
        printed.

    Raises:
        ConfigError: if the labels need more than `loader.cache_max_gb`.
        OutputError: if the labels cannot be written, or other ranks do not see them.
        DataError: if an image cannot be read.
    """
    if not teachers:
        return splits, []
    stores = []
    warnings: list[DataWarning] = []
    for teacher in teachers:
        store = TeacherLabelStore(_get_folder(experiment, splits.train, teacher), splits.train)
        _write_labels(experiment, splits.train, teacher, store)
        warnings += _report(teacher, store, len(splits.train))
        stores.append(store)
    return replace(splits, train=FilledDataset(splits.train, stores)), warnings


def _get_folder(experiment: ExperimentConfig, dataset: DenseDataset, teacher: Teacher) -> Path:
    """Return a folder whose name depends on everything that affects the labels."""
    data, loaded = change_sets(experiment.data.model_dump(), _drop_sampling), teacher.loaded
    terms = [
        *(__version__, version("torch"), version("timm"), repr(data)),
        *(dataset.split, dataset.fingerprint(), *dataset.tasks),
        *(loaded.weights_hash, loaded.experiment.compute_config_hash()),
        str(loaded.execution.autocast_dtype),
        *(f"{name} {task.predicted.name} {task.threshold}" for name, task in teacher.tasks.items()),
    ]
    key = hashlib.sha256("\n".join(terms).encode()).hexdigest()[:16]
    name = f"{experiment.data.name}-{dataset.split}-labels-{key}"
    return parse_path(experiment.loader.cache_dir) / name


def _drop_sampling(data: dict[str, Any]) -> dict[str, Any]:
    """Remove the options of a mixture, and of its sets, that do not change images and labels."""
    keys = SAMPLING_KEYS if data["name"] == MIXED else SAMPLING_KEYS_OF_SET
    return {key: value for key, value in data.items() if key not in keys}


def _write_labels(
    experiment: ExperimentConfig, dataset: DenseDataset, teacher: Teacher, store: TeacherLabelStore
) -> None:
    """Compute and write the labels that are not cached; each rank writes its share."""
    length, names = len(dataset), ", ".join(teacher.tasks)
    chunks = [
        range(start, min(start + CHUNK_SIZE, length)) for start in range(0, length, CHUNK_SIZE)
    ]
    missing = iter_missing_chunks(
        chunks,
        _TeacherInputs(dataset, teacher),
        store.contains,
        num_workers=count_workers(experiment.loader.num_workers),
        title=f"labels of {names} by {teacher.loaded.file}",
        folder=store.folder,
    )
    _check_size(experiment, teacher, length, store.folder)
    teacher.loaded.model.eval()
    for indices, items, _ in missing:
        _write_chunk(indices, items, teacher, store)


class _TeacherInputs(Dataset[Item]):
    """Images of a split as the input of a teacher, with their labels.

    Images are resized or padded as in an evaluation of the teacher; images that are larger than a
    padded input are resized.

    Args:
        dataset: the split.
        teacher: the teacher.
    """

    def __init__(self, dataset: DenseDataset, teacher: Teacher) -> None:
        self._dataset, self._input = dataset, teacher.loaded.experiment.input
        self._border = get_border(teacher.loaded.experiment)

    def __getitem__(self, index: int) -> Item:
        sample, size = self._dataset[index], self._input.size
        fits = sample.size[0] <= size[0] and sample.size[1] <= size[1]
        place = pad_to_size if self._input.fit == "pad" and fits else stretch_to_size
        geometry, placement = place(sample.size, size)
        image = geometry.apply_image(sample.image, self._border)
        return Sample(image, sample.targets, sample.id), placement


@torch.inference_mode()
def _write_chunk(
    indices: Sequence[int], items: Sequence[Item], teacher: Teacher, store: TeacherLabelStore
) -> None:
    """Predict and write the labels of a chunk; images with all labels are not predicted."""
    execution = teacher.loaded.execution
    missing = [[name for name in teacher.tasks if name not in each.targets] for each, _ in items]
    rows = [row for row, names in enumerate(missing) if names]
    if rows:
        images = torch.from_numpy(np.stack([items[row][0].image for row in rows]))
        batch = images.permute(0, 3, 1, 2).to(execution.device)
        predictions = forward_low_res(teacher.loaded.model, batch, execution)
    for row, (index, (_, placement)) in enumerate(zip(indices, items, strict=True)):
        labels, shares = {}, {}
        for name in missing[row]:
            labels[name], shares[name] = _make_label(
                teacher.tasks[name], predictions, rows.index(row), placement
            )
        store.save(index, labels, shares)


def _make_label(
    task: TaughtTask, predictions: Predictions, row: int, placement: ImagePlacement
) -> tuple[Any, float]:
    """Return a label and its share of valid pixels.

    The label has the size of the image, or that of the input of the teacher if it is smaller, since
    larger labels would contain no more information.
    """
    height, width = placement.box[2:]
    if placement.size[0] * placement.size[1] > height * width:
        placement = replace(placement, size=(height, width))
    logits = predictions.logits[task.predicted.name][row : row + 1]
    lazy = LazyLogits.from_placement(logits, placement, predictions.padded_size)
    label = make_pseudo_label(task.predicted, lazy.upsample(), task.threshold)
    share = task.predicted.compute_valid_mask(label).float().mean()
    return to_hwc(label[0]), float(share)


def _check_size(experiment: ExperimentConfig, teacher: Teacher, length: int, folder: Path) -> None:
    """Check that the labels fit into the cache even if every image needs them."""
    height, width = teacher.loaded.experiment.input.size
    pixel_bytes = sum(
        1 if isinstance(task.predicted, CategoricalTask) else 2 * task.predicted.value_channels
        for task in teacher.tasks.values()
    )
    size_gb = length * height * width * pixel_bytes / BYTES_PER_GB
    if size_gb > experiment.loader.cache_max_gb:
        raise ConfigError(
            f"teachers: labels of {', '.join(teacher.tasks)} may need {size_gb:.3g} GB in {folder},"
            f" more than loader.cache_max_gb ({experiment.loader.cache_max_gb:g}): raise the limit"
        )


def _report(teacher: Teacher, store: TeacherLabelStore, length: int) -> list[DataWarning]:
    """Print how many images and pixels are filled; return warnings about too few pixels."""
    shares = [store.load_shares(index) for index in range(length)]
    warnings = []
    for name, task in teacher.tasks.items():
        of_task = [each[name] for each in shares if name in each]
        if not of_task:
            print_message(f"teachers.{name}: every training image has a label; none is filled")
            continue
        share = float(np.mean(of_task))
        line = (
            f"teachers.{name}: labels of {len(of_task)} of {length} training images are predicted;"
            f" {share:.1%} of their pixels are used"
        )
        if share < MIN_SHARE:
            line += ": choose another teacher"
            if isinstance(task.predicted, CategoricalTask):
                line += f", or lower teachers.{name}.threshold ({task.threshold:g})"
            warnings.append(DataWarning(line, name))
            line = f"warning: {line}"
        print_message(line)
    return warnings
