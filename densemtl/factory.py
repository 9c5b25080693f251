"""From an experiment to its parts: the only file that knows all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from densemtl import __version__
from densemtl import registry
from densemtl.balancing.base import Balancer
from densemtl.config.experiment import Component, Experiment, TaskEntry
from densemtl.transforms.random_geometry import Augment
from densemtl.data.base import DenseDataset, Split
from densemtl.data.memory_cache import Cached
from densemtl.data.disk_cache import DiskCached
from densemtl.data.batching import EvalView, TrainView, eval_loader, train_loader
from densemtl.transforms.color_jitter import Photometric
from densemtl.transforms.albumentations import Pixels
from densemtl.data.skip_corrupt import Readable
from densemtl.data.dataloader import Loader
from densemtl.errors import ConfigError
from densemtl.metrics.protocols.base import MetricSpec
from densemtl.backbones.backbone import Backbone
from densemtl.models.multi_task_model import DenseModel
from densemtl.tasks.added_metrics import metric_errors
from densemtl.tasks.base import Task
from densemtl.trackers.base import Tracker
from densemtl.types import Batch, FeatureSpec


@dataclass(frozen=True)
class Splits:
    """The two halves of an experiment's data."""

    train: DenseDataset
    val: DenseDataset


def build_tasks(experiment: Experiment) -> list[Task]:
    """One object a task: the dataset's defaults for it, and on top what the user set.

    Raises:
        ConfigError: the protocol does not score a task, or an added metric does not fit it.
    """
    tasks = _build_tasks(experiment, experiment.tasks)
    errors = [
        f"tasks.{index}.{error}"
        for index, task in enumerate(tasks)
        for error in metric_errors(task, experiment.protocol)
    ]
    if errors:
        raise ConfigError("\n".join(errors))
    return tasks


def build_auxiliary_tasks(experiment: Experiment) -> list[Task]:
    """Likewise of those that are learnt besides, so that the tasks profit from them."""
    return _build_tasks(experiment, experiment.auxiliary_tasks)


def _build_tasks(experiment: Experiment, entries: Sequence[TaskEntry]) -> list[Task]:
    offered = offers(experiment.data)
    return [build_task(entry, offered.get(entry.name, {})) for entry in entries]


def offers(data: Component) -> dict[str, dict[str, Any]]:
    """{task: its default options} of a dataset, without looking at its files."""
    cls = registry.find("data", data.name)
    offered: dict[str, dict[str, Any]] = cls.offers(**registry.parse_options(cls, data.options))
    return offered


def build_task(entry: TaskEntry, defaults: dict[str, Any]) -> Task:
    """A task of what the user set, on top of defaults."""
    options = {**defaults, **entry.options}
    kind = entry.kind or options.pop("kind", None) or entry.name
    options.pop("kind", None)
    task: Task = registry.make("tasks", kind, entry.name, options=options)
    task.added_metrics = tuple(MetricSpec(each.name, each.options) for each in entry.metrics)
    return task


def build_dataset(experiment: Experiment, split: Split) -> DenseDataset:
    """A split, its decoded samples kept in memory or on disk if the experiment asks for it.

    Labels of auxiliary tasks are read for training alone.

    Raises:
        DataError: the data is not there, or not as expected.
    """
    name, options = experiment.data.name, experiment.data.options
    labels = experiment.learnt_names() if split == "train" else experiment.task_names()
    dataset: DenseDataset = registry.make("data", name, split, labels, options=options)
    if experiment.loader.corrupt == "skip":
        dataset = Readable(dataset, experiment.loader.workers)
    if experiment.loader.cache == "memory":
        return Cached(dataset, experiment.loader.workers)
    if experiment.loader.cache == "disk":
        return DiskCached(dataset, _cache_folder(experiment, dataset))
    return dataset


def _cache_folder(experiment: Experiment, dataset: DenseDataset) -> Path:
    """One of its own for whatever changes the samples."""
    data = experiment.data.model_dump_json()
    terms = [__version__, data, dataset.split, *dataset.tasks, dataset.fingerprint()]
    key = hashlib.sha256("\n".join(terms).encode()).hexdigest()[:16]
    folder = experiment.loader.cache_folder.expanduser()
    return folder / f"{experiment.data.name}-{dataset.split}-{key}"


def build_splits(experiment: Experiment) -> Splits:
    """Both splits."""
    return Splits(build_dataset(experiment, "train"), build_dataset(experiment, "val"))


def build_train_loader(
    experiment: Experiment, dataset: DenseDataset, tasks: Sequence[Task], pin_memory: bool
) -> Loader[Batch]:
    """Shuffled, augmented batches with the labels of `tasks`."""
    jitter, pixels = experiment.augment.jitter, experiment.augment.pixels
    view = TrainView(
        dataset,
        tasks,
        experiment.input.size,
        experiment.input.fit,
        Augment(experiment.augment),
        [*([Photometric(jitter)] if jitter else []), *([Pixels(pixels)] if pixels else [])],
        experiment.seed,
    )
    loader = experiment.loader
    return train_loader(view, loader.batch_size, loader.workers, pin_memory)


def build_eval_loader(
    experiment: Experiment, dataset: DenseDataset, tasks: Sequence[Task], pin_memory: bool
) -> Loader[Batch]:
    """Every image once, untouched but for its fit into the input."""
    view = EvalView(dataset, experiment.input.size, experiment.input.fit)
    loader = experiment.loader
    return eval_loader(view, tasks, loader.eval_batch_size, loader.workers, pin_memory)


def build_model(
    experiment: Experiment, tasks: Sequence[Task], pretrained: bool | None = None
) -> DenseModel:
    """The network.

    Args:
        experiment: names backbone, decoder and head.
        tasks: what to predict; auxiliary tasks come from the experiment.
        pretrained: overrules the backbone's own option; False before a checkpoint is loaded.

    Raises:
        ModelError: backbone, decoder and head do not go together, or weights cannot be had.
    """
    auxiliary = build_auxiliary_tasks(experiment)
    options = {"img_size": experiment.input.size, **experiment.backbone.options}
    if pretrained is not None:
        options["pretrained"] = pretrained
    backbone = Component(name=experiment.backbone.name, **options)
    return assemble(backbone, experiment.head, experiment.decoder, tasks, auxiliary)


def assemble(
    backbone: Component,
    head: Component,
    decoder: Component,
    tasks: Sequence[Task],
    auxiliary: Sequence[Task] = (),
) -> DenseModel:
    """The network of these parts.

    Raises:
        ConfigError: no such component, or an option that it does not take.
        ModelError: they do not go together, or weights cannot be had.
    """
    options = registry.parse_options(Backbone, backbone.options)

    def make_backbone() -> Backbone:
        return Backbone(backbone.name, **options)

    def make_head(features: FeatureSpec, channels: int) -> nn.Module:
        return _make("heads", head, features, channels)

    given = [make_backbone, make_head, tasks, *([auxiliary] if auxiliary else [])]
    return DenseModel(_make("decoders", decoder, *given))


def build_balancer(experiment: Experiment, tasks: Sequence[Task]) -> Balancer:
    """The rule that weighs the tasks' losses or gradients."""
    balancer: Balancer = _make("balancing", experiment.balancing, tasks)
    return balancer


def build_trackers(experiment: Experiment) -> list[Tracker]:
    """What shows a run while it goes; none is started yet.

    Raises:
        ConfigError: the extra of one is not installed.
    """
    return [_make("trackers", tracker) for tracker in experiment.trackers]


def _make(package: str, component: Component, *given: Any) -> Any:
    return registry.make(package, component.name, *given, options=component.options)
