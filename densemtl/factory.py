"""From an experiment to its parts: the only file that knows all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from densemtl import __version__, registry
from densemtl.backbones.backbone import Backbone
from densemtl.balancing.base import Balancer
from densemtl.config.experiment import ComponentConfig, ExperimentConfig, TaskConfig
from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset, TrainDataset, make_eval_loader, make_train_loader
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.data.disk_cache import MemmapCacheDataset
from densemtl.data.memory_cache import InMemoryDataset
from densemtl.data.skip_corrupt import SkipCorruptDataset
from densemtl.errors import ConfigError
from densemtl.metrics.protocols.base import MetricSpec
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.added_metrics import metric_errors
from densemtl.tasks.base import Task
from densemtl.trackers.base import Tracker
from densemtl.transforms.albumentations import AlbumentationsTransform
from densemtl.transforms.color_jitter import AffineColorJitter
from densemtl.transforms.random_geometry import RandomGeometry
from densemtl.types import Batch, FeatureInfo, Split


@dataclass(frozen=True)
class Splits:
    """The two halves of an experiment's data."""

    train: DenseDataset
    val: DenseDataset


def build_tasks(experiment: ExperimentConfig) -> list[Task]:
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


def build_auxiliary_tasks(experiment: ExperimentConfig) -> list[Task]:
    """Likewise of those that are learnt besides, so that the tasks profit from them."""
    return _build_tasks(experiment, experiment.auxiliary_tasks)


def _build_tasks(experiment: ExperimentConfig, task_configs: Sequence[TaskConfig]) -> list[Task]:
    offered = get_task_defaults(experiment.data)
    return [build_task(entry, offered.get(entry.name, {})) for entry in task_configs]


def get_task_defaults(data: ComponentConfig) -> dict[str, dict[str, Any]]:
    """{task: its default options} of a dataset, without looking at its files."""
    cls = registry.get_class("data.datasets", data.name)
    offered: dict[str, dict[str, Any]] = cls.task_defaults(
        **registry.parse_options(cls, data.options)
    )
    return offered


def build_task(task_config: TaskConfig, defaults: dict[str, Any]) -> Task:
    """A task of what the user set, on top of defaults."""
    options = {**defaults, **task_config.options}
    kind = task_config.kind or options.pop("kind", None) or task_config.name
    options.pop("kind", None)
    task: Task = registry.create("tasks", kind, task_config.name, options=options)
    task.added_metrics = tuple(MetricSpec(spec.name, spec.options) for spec in task_config.metrics)
    return task


def build_dataset(experiment: ExperimentConfig, split: Split) -> DenseDataset:
    """A split, its decoded samples kept in memory or on disk if the experiment asks for it.

    Labels of auxiliary tasks are read for training alone.

    Raises:
        DataError: the data is not there, or not as expected.
    """
    name, options = experiment.data.name, experiment.data.options
    labels = experiment.list_all_task_names() if split == "train" else experiment.list_task_names()
    dataset: DenseDataset = registry.create("data.datasets", name, split, labels, options=options)
    if experiment.loader.on_corrupt == "skip":
        dataset = SkipCorruptDataset(dataset, experiment.loader.num_workers)
    if experiment.loader.cache == "memory":
        return InMemoryDataset(dataset, experiment.loader.num_workers)
    if experiment.loader.cache == "disk":
        return MemmapCacheDataset(dataset, _get_cache_dir(experiment, dataset))
    return dataset


def _get_cache_dir(experiment: ExperimentConfig, dataset: DenseDataset) -> Path:
    """One of its own for whatever changes the samples."""
    data = experiment.data.model_dump_json()
    terms = [__version__, data, dataset.split, *dataset.tasks, dataset.fingerprint()]
    key = hashlib.sha256("\n".join(terms).encode()).hexdigest()[:16]
    folder = experiment.loader.cache_dir.expanduser()
    return folder / f"{experiment.data.name}-{dataset.split}-{key}"


def build_splits(experiment: ExperimentConfig) -> Splits:
    """Both splits."""
    return Splits(build_dataset(experiment, "train"), build_dataset(experiment, "val"))


def build_train_loader(
    experiment: ExperimentConfig, dataset: DenseDataset, tasks: Sequence[Task], pin_memory: bool
) -> ErrorForwardingDataLoader[Batch]:
    """Shuffled, augmented batches with the labels of `tasks`."""
    jitter, pixels = experiment.augment.color_jitter, experiment.augment.albumentations
    view = TrainDataset(
        dataset,
        tasks,
        experiment.input.size,
        experiment.input.fit,
        RandomGeometry(experiment.augment),
        [
            *([AffineColorJitter(jitter)] if jitter else []),
            *([AlbumentationsTransform(pixels)] if pixels else []),
        ],
        experiment.seed,
    )
    loader = experiment.loader
    return make_train_loader(view, loader.batch_size, loader.num_workers, pin_memory)


def build_eval_loader(
    experiment: ExperimentConfig, dataset: DenseDataset, tasks: Sequence[Task], pin_memory: bool
) -> ErrorForwardingDataLoader[Batch]:
    """Every image once, untouched but for its fit into the input."""
    view = EvalDataset(dataset, experiment.input.size, experiment.input.fit)
    loader = experiment.loader
    return make_eval_loader(view, tasks, loader.eval_batch_size, loader.num_workers, pin_memory)


def build_model(
    experiment: ExperimentConfig, tasks: Sequence[Task], pretrained: bool | None = None
) -> MultiTaskModel:
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
    backbone = ComponentConfig(name=experiment.backbone.name, **options)
    return build_model_from_components(
        backbone, experiment.head, experiment.decoder, tasks, auxiliary
    )


def build_model_from_components(
    backbone: ComponentConfig,
    head: ComponentConfig,
    decoder: ComponentConfig,
    tasks: Sequence[Task],
    auxiliary_tasks: Sequence[Task] = (),
) -> MultiTaskModel:
    """The network of these parts.

    Raises:
        ConfigError: no such component, or an option that it does not take.
        ModelError: they do not go together, or weights cannot be had.
    """
    options = registry.parse_options(Backbone, backbone.options)

    def make_backbone() -> Backbone:
        return Backbone(backbone.name, **options)

    def make_head(features: FeatureInfo, channels: int) -> nn.Module:
        return _create_component("heads", head, features, channels)

    args = [make_backbone, make_head, tasks, *([auxiliary_tasks] if auxiliary_tasks else [])]
    return MultiTaskModel(_create_component("decoders", decoder, *args))


def build_balancer(experiment: ExperimentConfig, tasks: Sequence[Task]) -> Balancer:
    """The rule that weighs the tasks' losses or gradients."""
    balancer: Balancer = _create_component("balancing", experiment.balancing, tasks)
    return balancer


def build_trackers(experiment: ExperimentConfig) -> list[Tracker]:
    """What shows a run while it goes; none is started yet.

    Raises:
        ConfigError: the extra of one is not installed.
    """
    return [_create_component("trackers", tracker) for tracker in experiment.trackers]


def _create_component(package: str, component: ComponentConfig, *args: Any) -> Any:
    return registry.create(package, component.name, *args, options=component.options)
