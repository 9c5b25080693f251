"""Functions that build the objects of an experiment from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from densemtl import registry
from densemtl.backbones import normalization
from densemtl.backbones.backbone import Backbone
from densemtl.balancing.base import Balancer
from densemtl.config.components import ComponentConfig, TaskConfig
from densemtl.config.data_sets import SET_KEYS, change_sets
from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.batching import EvalDataset
from densemtl.data.caching import cache_dataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.data.datasets.mixed import MixedDataset
from densemtl.data.image_format import get_image_format
from densemtl.data.loaders import count_workers, make_eval_loader, make_train_loader
from densemtl.data.splits import Splits
from densemtl.data.train_view import make_train_view
from densemtl.errors import ConfigError
from densemtl.metrics.protocols.base import MetricSpec
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.added_metrics import find_other_classes, metric_errors
from densemtl.tasks.base import Task
from densemtl.tasks.class_gates import find_gates
from densemtl.tasks.loss_task import set_class_weights
from densemtl.trackers.base import Tracker
from densemtl.types import Batch, FeatureInfo, Split


def build_tasks(experiment: ExperimentConfig) -> list[Task]:
    """Build the tasks of an experiment, with the dataset's default options.

    Args:
        experiment: configuration; options of a task override the defaults of the dataset.

    Returns:
        The tasks in the order of the configuration, without auxiliary tasks.

    Raises:
        ConfigError: if the protocol does not support a task, or an added metric does not fit it.
    """
    tasks = _build_tasks(experiment, experiment.tasks)
    find_other_classes(tasks)
    errors = [
        f"tasks.{index}.{error}"
        for index, task in enumerate(tasks)
        for error in metric_errors(task, experiment.protocol)
    ]
    if errors:
        raise ConfigError("\n".join(errors))
    return tasks


def build_auxiliary_tasks(experiment: ExperimentConfig) -> list[Task]:
    """Build the auxiliary tasks of an experiment, which are learned but not evaluated.

    Args:
        experiment: configuration.

    Returns:
        The auxiliary tasks in the order of the configuration.
    """
    return _build_tasks(experiment, experiment.auxiliary_tasks)


def _build_tasks(experiment: ExperimentConfig, task_configs: Sequence[TaskConfig]) -> list[Task]:
    defaults = get_task_defaults(experiment.data)
    return [build_task(entry, defaults.get(entry.name, {})) for entry in task_configs]


def get_task_defaults(data: ComponentConfig) -> dict[str, dict[str, Any]]:
    """Return the default options of all tasks that a dataset has labels for.

    The files of the dataset are not read.

    Args:
        data: configuration of the dataset.

    Returns:
        {task: {option: value}}.

    Raises:
        ConfigError: if the dataset does not exist.
        pydantic.ValidationError: if an option is wrong.
    """
    cls = registry.get_class("data.datasets", data.name)
    defaults: dict[str, dict[str, Any]] = cls.task_defaults(
        **registry.parse_options(cls, data.options)
    )
    return defaults


def save_task_defaults(experiment: ExperimentConfig) -> ExperimentConfig:
    """Store the default options of the tasks in the configuration if the dataset reads them.

    A trained model can then be loaded without the files of the dataset.

    Args:
        experiment: configuration to train.

    Returns:
        The configuration with `data.offers` if the dataset has this option, or else the same.
    """
    data = change_sets(experiment.data.model_dump(), _add_offers)
    return experiment.model_copy(update={"data": ComponentConfig(**data)})


def _add_offers(data: dict[str, Any]) -> dict[str, Any]:
    """Add the option `offers` to the section of a dataset that has it."""
    if not registry.has_option(registry.get_class("data.datasets", data["name"]), "offers"):
        return data
    options = {key: value for key, value in data.items() if key not in SET_KEYS}
    return {**data, "offers": get_task_defaults(ComponentConfig(name=data["name"], **options))}


def build_task(task_config: TaskConfig, defaults: dict[str, Any]) -> Task:
    """Build a task.

    Args:
        task_config: name, kind, options and added metrics of the task.
        defaults: {option: value} for options that `task_config` does not set.

    Returns:
        The task.

    Raises:
        ConfigError: if the kind of the task does not exist or an option is wrong.
    """
    options = {**defaults, **task_config.options}
    default_kind = options.pop("kind", None)
    kind = task_config.kind or default_kind or task_config.name
    task: Task = _create("tasks", kind, task_config.name, options=options)
    set_class_weights(task, task_config.computed_class_weights)
    task.added_metrics = tuple(MetricSpec(spec.name, spec.options) for spec in task_config.metrics)
    return task


def build_dataset(experiment: ExperimentConfig, split: Split) -> DenseDataset:
    """Build the dataset of a split, cached as `loader.cache` says.

    The training split also has the labels of the auxiliary tasks.

    Args:
        experiment: configuration.
        split: training or validation split.

    Returns:
        The dataset, without augmentation.

    Raises:
        ConfigError: if the dataset does not exist or an option is wrong.
        DataError: if files of the dataset are missing or not as expected.
    """
    labels = experiment.list_all_task_names() if split == "train" else experiment.list_task_names()
    dataset: DenseDataset = _create_component("data.datasets", experiment.data, split, labels)
    wrap = partial(cache_dataset, experiment.loader)
    if isinstance(dataset, MixedDataset):
        return dataset.wrap_parts(wrap)
    return wrap(dataset, experiment.data.name, experiment.data.options)


def build_splits(experiment: ExperimentConfig) -> Splits:
    """Build the datasets of both splits.

    Args:
        experiment: configuration.

    Returns:
        Training and validation split, as from `build_dataset`.

    Raises:
        DataError: if files of the dataset are missing or not as expected.
    """
    return Splits(build_dataset(experiment, "train"), build_dataset(experiment, "val"))


def build_train_loader(
    experiment: ExperimentConfig, dataset: DenseDataset, tasks: Sequence[Task], pin_memory: bool
) -> ErrorForwardingDataLoader[Batch]:
    """Build the data loader of training: shuffled and augmented batches.

    Args:
        experiment: configuration of input, augmentation and loader.
        dataset: training split.
        tasks: tasks whose targets the batches contain.
        pin_memory: copy batches to page-locked memory, for transfers to a GPU.

    Returns:
        A data loader that re-raises errors of its worker processes.
    """
    loader, border = experiment.loader, get_border(experiment)
    view = make_train_view(experiment, dataset, tasks, border)
    workers = count_workers(loader.num_workers)
    return make_train_loader(view, loader.batch_size, workers, pin_memory)


def get_border(experiment: ExperimentConfig) -> tuple[float, ...]:
    """Return the values in 0..255 of the channels outside an image: 0 after normalization."""
    channels = get_image_format(experiment.data).channels
    options = registry.parse_options(Backbone, experiment.backbone.options)
    return normalization.get_border(channels, options.get("mean"), options.get("std"))


def build_eval_loader(
    experiment: ExperimentConfig, dataset: DenseDataset, tasks: Sequence[Task], pin_memory: bool
) -> ErrorForwardingDataLoader[Batch]:
    """Build the data loader of evaluation: every image once, resized or padded to the input.

    Args:
        experiment: configuration of input and loader.
        dataset: split to evaluate.
        tasks: tasks whose targets the batches contain.
        pin_memory: copy batches to page-locked memory, for transfers to a GPU.

    Returns:
        A data loader that re-raises errors of its worker processes.
    """
    size, fit = experiment.input.size, experiment.input.fit
    view = EvalDataset(dataset, size, fit, get_border(experiment))
    loader = experiment.loader
    workers = count_workers(loader.num_workers)
    return make_eval_loader(view, tasks, loader.eval_batch_size, workers, pin_memory)


def build_model(
    experiment: ExperimentConfig, tasks: Sequence[Task], pretrained: bool | None = None
) -> MultiTaskModel:
    """Build the model of an experiment.

    Args:
        experiment: configuration of backbone, decoder, head and auxiliary tasks.
        tasks: tasks to predict.
        pretrained: overrides `backbone.pretrained`; pass False if a checkpoint is loaded later.

    Returns:
        The model, on the CPU.

    Raises:
        ConfigError: if a component does not exist or an option is wrong.
        ModelError: if the components do not fit together or the weights cannot be loaded.
    """
    auxiliary = build_auxiliary_tasks(experiment)
    channels = get_image_format(experiment.data).channels
    size, chosen = experiment.input.size, experiment.backbone.options
    options = {"img_size": size, "in_chans": channels, **chosen}
    if options["in_chans"] != channels:
        raise ConfigError(
            f"backbone.in_chans: {options['in_chans']}, but images have {channels} channels; remove"
            " it, it follows from data.channels"
        )
    if pretrained is not None:
        options["pretrained"] = pretrained
    if pretrained is False:  # the checkpoint contains the weights, and the file may be gone
        options.pop("weights", None)
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
    """Build a model from the configurations of its components.

    Args:
        backbone: timm model.
        head: head of each task.
        decoder: decoder that connects backbone and heads.
        tasks: tasks to predict.
        auxiliary_tasks: tasks that are learned but not predicted.

    Returns:
        The model, on the CPU.

    Raises:
        ConfigError: if a component does not exist or an option is wrong.
        ModelError: if the components do not fit together or the weights cannot be loaded.
    """
    options = registry.parse_options(Backbone, backbone.options)

    def make_backbone() -> Backbone:
        return Backbone(backbone.name, **options)

    def make_head(features: FeatureInfo, channels: int) -> nn.Module:
        module: nn.Module = _create_component("heads", head, features, channels)
        return module

    args = [make_backbone, make_head, tasks, *([auxiliary_tasks] if auxiliary_tasks else [])]
    gates = find_gates([*tasks, *auxiliary_tasks])
    return MultiTaskModel(_create_component("decoders", decoder, *args), gates)


def build_balancer(experiment: ExperimentConfig, tasks: Sequence[Task]) -> Balancer:
    """Build the balancing method of an experiment.

    Args:
        experiment: configuration of the balancing method.
        tasks: tasks whose losses or gradients are weighted.

    Returns:
        The balancing method.

    Raises:
        ConfigError: if the method does not exist or an option is wrong.
    """
    balancer: Balancer = _create_component("balancing", experiment.balancing, tasks)
    return balancer


def build_trackers(experiment: ExperimentConfig) -> list[Tracker]:
    """Build the trackers of an experiment, without starting them.

    Args:
        experiment: configuration of the trackers.

    Returns:
        The trackers in the order of the configuration.

    Raises:
        ConfigError: if a library that a tracker needs is not installed.
    """
    return [_create_component("trackers", tracker) for tracker in experiment.trackers]


def _create_component(package: str, component: ComponentConfig, *args: Any) -> Any:
    return _create(package, component.name, *args, options=component.options)


def _create(package: str, name: str, *args: Any, options: dict[str, Any]) -> Any:
    registry.check_kind(package, name)
    return registry.create(package, name, *args, options=options)
