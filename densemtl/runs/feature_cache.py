"""Training from the cached features of a frozen backbone (`loader.cache: features`)."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from densemtl import __version__, registry
from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.batching import TrainDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.data.feature_cache import (
    FeatureCollate,
    FeatureDataset,
    FeatureRecord,
    FeatureStore,
    Item,
    ViewIndex,
)
from densemtl.data.loaders import count_workers
from densemtl.decoders.base import SharedBackboneDecoder
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.weights_file import compute_weights_hash
from densemtl.errors import ConfigError, OutputError
from densemtl.io.paths import parse_path
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.missing_files import iter_missing_chunks
from densemtl.runtime.execution import ExecutionConfig
from densemtl.runtime.progress_bar import print_message
from densemtl.tasks.base import Task
from densemtl.tasks.loss_task import LossTask
from densemtl.types import Batch

CHUNK_SIZE = 8
"""Number of images whose features are computed together. Chunks are always the same images, so that
features do not depend on which of them were cached before."""

WEIGHTS = {"pretrained", "weights", "weights_match"}
"""Options of the backbone that are replaced by the content of its weights."""

BYTES_PER_GB = 1e9


def check_feature_cache(experiment: ExperimentConfig, model: MultiTaskModel) -> None:
    """Check that the decoder can be trained from cached features.

    Args:
        experiment: the experiment.
        model: its model.

    Raises:
        ConfigError: if the backbone is trained, the decoder does not only read its features, or
            parameters are sharded.
    """
    prefix = "loader.cache: features"
    if not isinstance(model.decoder, SharedBackboneDecoder):
        names = [
            name
            for name in registry.list_names("decoders")
            if issubclass(registry.get_class("decoders", name), SharedBackboneDecoder)
        ]
        raise ConfigError(
            f"{prefix}: decoder {experiment.decoder.name!r} does not only read the features of one"
            f" backbone: use {', '.join(names)}, or another cache"
        )
    if not model.decoder.reads_image_once:
        raise ConfigError(f"{prefix}: the decoder reads several scales: set decoder.scales=[1]")
    if experiment.backbone.options.get("adapters"):
        raise ConfigError(f"{prefix}: backbone.adapters are trained: remove one of both")
    if experiment.backbone.options.get("freeze") != "all":
        raise ConfigError(f"{prefix}: the backbone is trained: set backbone.freeze=all")
    if experiment.train.fsdp:
        raise ConfigError(f"{prefix}: a frozen backbone needs no sharding: set train.fsdp=false")


def cache_features(experiment: ExperimentConfig, run: TrainingRun) -> TrainingRun:
    """Compute the features that are not cached yet, and let a run read them.

    All ranks must call this function; each computes its share.

    Args:
        experiment: the experiment.
        run: the run, ready to start or resume.

    Returns:
        The run with loaders of the same batches, which contain features instead of images.

    Raises:
        ConfigError: if the features need more than `loader.cache_max_gb`.
        OutputError: if the features cannot be written, or other ranks do not see them.
        DataError: if an image cannot be read.
    """
    model = run.train_step.model.eval()
    assert isinstance(model, MultiTaskModel)
    train_source = run.train_loader.source
    assert isinstance(train_source, TrainDataset)
    if train_source.dataset.mixture is not None and experiment.augment.num_views is None:
        raise ConfigError(
            "loader.cache: features: images of several datasets are visited several times per"
            " epoch: set augment.num_views"
        )
    num_epochs = math.ceil(run.total_steps / run.steps_per_epoch)
    num_views = experiment.augment.num_views or num_epochs
    if train_source.dataset.mixture is None:
        num_views = min(num_views, num_epochs)
    loaders = []
    for loader, dataset, count in (
        (run.train_loader, train_source.dataset, num_views),
        (run.val_loader, run.val_dataset, 1),
    ):
        folder = _get_folder(experiment, dataset, model, run.train_step.precision)
        store = FeatureStore(folder, dataset)
        keep_images = loader is run.train_loader and _need_images(run.train_step.tasks)
        writer = _FeatureWriter(store, count, experiment.loader.cache_max_gb, keep_images)
        writer.write(loader, model, run.train_step.precision)
        loaders.append(loader.with_source(FeatureDataset(store, count), _make_collate(experiment)))
    return replace(run, train_loader=loaders[0], val_loader=loaders[1])


def _need_images(tasks: Sequence[Task]) -> bool:
    """Return whether the loss of a task reads the image."""
    return any(isinstance(task, LossTask) and task.needs_image for task in tasks)


def _make_collate(
    experiment: ExperimentConfig,
) -> Callable[[Callable[[Any], Batch]], Callable[[Any], Batch]]:
    return lambda collate: FeatureCollate(collate, experiment.input.size)


def _get_folder(
    experiment: ExperimentConfig,
    dataset: DenseDataset,
    model: MultiTaskModel,
    execution: ExecutionConfig,
) -> Path:
    """Return a folder whose name depends on everything that affects features and labels."""
    assert isinstance(model.decoder, SharedBackboneDecoder)
    tasks = [*experiment.tasks, *experiment.auxiliary_tasks]
    terms = [
        *(__version__, version("torch"), version("timm")),
        *(experiment.data.model_dump_json(), dataset.split, dataset.fingerprint()),
        *(task.model_dump_json(exclude={"metrics"}) for task in tasks),
        *(experiment.input.model_dump_json(), experiment.backbone.model_dump_json(exclude=WEIGHTS)),
        *(compute_weights_hash(model.decoder.backbone), str(execution.autocast_dtype)),
    ]
    if dataset.split == "train":
        augment = experiment.augment.model_dump_json(exclude={"num_views"})
        terms += [augment, str(experiment.seed)]
    key = hashlib.sha256("\n".join(terms).encode()).hexdigest()[:16]
    name = f"{experiment.data.name}-{dataset.split}-features-{key}"
    return parse_path(experiment.loader.cache_dir) / name


class _Views(Dataset[Item]):
    """Views of a training or evaluation dataset.

    Args:
        source: dataset of a loader.
        is_train: whether it is indexed by (epoch, index), or else by the index only.
    """

    def __init__(self, source: Dataset[Any], is_train: bool) -> None:
        self._source, self._is_train = source, is_train

    def __getitem__(self, key: ViewIndex) -> Item:
        item: Item = self._source[key if self._is_train else key[1]]
        return item


class _FeatureWriter:
    """Writer of all views of a split that are not cached yet.

    Args:
        store: the files.
        num_views: number of views of each image.
        max_gb: maximum size of the files in GB.
        keep_images: whether to store the images as well.
    """

    def __init__(
        self, store: FeatureStore, num_views: int, max_gb: float, keep_images: bool
    ) -> None:
        self._store, self._num_views = store, num_views
        self._max_gb, self._keep_images = max_gb, keep_images

    def write(
        self,
        loader: ErrorForwardingDataLoader[Batch],
        model: MultiTaskModel,
        execution: ExecutionConfig,
    ) -> None:
        """Compute and write the missing views; each rank writes its share."""
        split = self._store.dataset.split
        missing = iter_missing_chunks(
            self._list_chunks(),
            _Views(loader.source, split == "train"),
            self._store.contains,
            num_workers=count_workers(loader.num_workers),
            title=f"features of {split}",
            folder=self._store.folder,
        )
        for number, (keys, items, num_missing) in enumerate(missing):
            self._write_chunk(keys, items, model, execution)
            if number == 0:
                self._check_size(num_missing)

    def _list_chunks(self) -> list[list[ViewIndex]]:
        length = len(self._store.dataset)
        return [
            [(view, index) for index in range(start, min(start + CHUNK_SIZE, length))]
            for view in range(self._num_views)
            for start in range(0, length, CHUNK_SIZE)
        ]

    @torch.no_grad()
    def _write_chunk(
        self,
        keys: Sequence[ViewIndex],
        items: Sequence[Item],
        model: MultiTaskModel,
        execution: ExecutionConfig,
    ) -> None:
        images = np.stack([sample.image for sample, _ in items])
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(execution.device)
        features = execution.forward(model.extract_features, batch)
        levels = [each.cpu() for each in features.maps]
        for position, (key, (sample, placement)) in enumerate(zip(keys, items, strict=True)):
            if not self._store.contains(key):
                maps = [level[position] for level in levels]
                image = sample.image if self._keep_images else None
                self._store.save(key, FeatureRecord(maps, sample.targets, placement, image))

    def _check_size(self, num_missing: int) -> None:
        """Print the size of all files, after the first ones; check that there is enough space."""
        folder, length = self._store.folder, len(self._store.dataset)
        size = next(folder.rglob("*.npy")).stat().st_size
        total_gb = self._num_views * length * size / BYTES_PER_GB
        views = f"{self._num_views} view" + ("s" if self._num_views > 1 else "")
        split = self._store.dataset.split
        print_message(
            f"loader.cache: features of {split}: {length} images, {views} of {size / 1e6:.2g} MB,"
            f" {total_gb:.3g} GB in {folder}"
        )
        fix = "lower augment.num_views"
        if total_gb > self._max_gb:
            raise ConfigError(
                f"loader.cache: features of {split} need {total_gb:.3g} GB, more than"
                f" loader.cache_max_gb ({self._max_gb:g}): {fix} or raise the limit"
            )
        free_gb = shutil.disk_usage(folder).free / BYTES_PER_GB
        if num_missing * size / BYTES_PER_GB > free_gb:
            raise OutputError(
                f"{folder}: the features of {split} need {num_missing * size / BYTES_PER_GB:.3g} GB"
                f" more, but the disk has {free_gb:.3g} GB: {fix}, or set loader.cache_dir"
            )
