"""Functions that create tasks and models by name, for custom data and training loops.

Example:
    >>> import torch
    >>> tasks = create_tasks(["semseg", {"name": "depth", "loss": "berhu"}], data="nyud")
    >>> [(task.name, task.channels) for task in tasks]
    [('semseg', 40), ('depth', 1)]
    >>> model = create_model("hard_sharing", backbone="test_resnet", head="linear", tasks=tasks)
    >>> predictions = model.eval()(torch.zeros(2, 3, 48, 64, dtype=torch.uint8))
    >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
    {'semseg': (2, 40, 48, 64), 'depth': (2, 1, 48, 64)}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from densemtl import registry
from densemtl.config.components import ComponentConfig, TaskConfig
from densemtl.config.data_sets import change_sets, name_sets
from densemtl.config.translation import translate_config
from densemtl.config.validation import find_errors
from densemtl.errors import ConfigError
from densemtl.factory import build_model_from_components, build_task, get_task_defaults
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.added_metrics import find_other_classes
from densemtl.tasks.base import Task
from densemtl.types import Size

ComponentSpec = str | Mapping[str, Any]
"""Name of a component, or {"name": .., option: ..}; `package.module:Class` names a custom class."""


def create_tasks(
    tasks: Sequence[ComponentSpec | Task], data: ComponentSpec | None = None
) -> list[Task]:
    """Create tasks by name.

    Args:
        tasks: names, {"name": .., "kind": .., option: ..}, or `Task` objects, which are returned
            unchanged.
        data: dataset that provides default options of the tasks, such as class names. Its files
            are not needed.

    Returns:
        One `Task` for each entry, in the same order.

    Raises:
        ConfigError: if a task does not exist or an option is wrong; one line per error.

    Example:
        >>> create_tasks(["human_parts"], data="pascal_context")[0].channels
        7
        >>> custom = {"name": "albedo", "kind": "regression", "channels": 3}
        >>> [task.name for task in create_tasks(["depth", custom])]
        ['depth', 'albedo']
    """
    named = [_to_component_dict(task) for task in tasks if not isinstance(task, Task)]
    dataset = {} if data is None else {"data": _add_dummy_root(_to_component_dict(data))}
    _raise_config_errors({**dataset, **({"tasks": named} if named else {})})
    task_defaults = get_task_defaults(ComponentConfig(**dataset["data"])) if dataset else {}
    created = [
        task if isinstance(task, Task) else _create_task(_to_component_dict(task), task_defaults)
        for task in tasks
    ]
    find_other_classes(created)
    return created


def create_model(
    decoder: ComponentSpec,
    *,
    backbone: ComponentSpec,
    tasks: Sequence[ComponentSpec | Task],
    auxiliary_tasks: Sequence[ComponentSpec | Task] = (),
    head: ComponentSpec = "fpn",
    data: ComponentSpec | None = None,
    img_size: Size | None = None,
    pretrained: bool = False,
) -> MultiTaskModel:
    """Create a multi-task model from the names of its components.

    Args:
        decoder: decoder that connects backbone and heads; see `list_decoders`.
        backbone: name of a timm model that returns feature maps.
        tasks: tasks to predict, as in `create_tasks`.
        auxiliary_tasks: tasks that are learned but not predicted, if the decoder supports them.
        head: head of each task; see `list_heads`.
        data: dataset that provides default options of tasks, as in `create_tasks`.
        img_size: (height, width) of the input, for backbones that are built for a fixed size.
        pretrained: load timm's pretrained weights.

    Returns:
        Model from RGB images (B, 3, H, W), uint8 or float in 0..255, to `Predictions`.

    Raises:
        ConfigError: if a component does not exist or an option is wrong; one line per error.
        ModelError: if the components do not fit together or the weights cannot be loaded.
    """
    parts = {"decoder": _to_component_dict(decoder), "head": _to_component_dict(head)}
    parts["backbone"] = _to_backbone_dict(backbone, img_size, pretrained)
    named = {"tasks": _to_task_dicts(tasks), "auxiliary_tasks": _to_task_dicts(auxiliary_tasks)}
    _raise_config_errors({**parts, **named})
    built = create_tasks([*tasks, *auxiliary_tasks], data)
    return build_model_from_components(
        **{section: ComponentConfig(**part) for section, part in parts.items()},
        tasks=built[: len(tasks)],
        auxiliary_tasks=built[len(tasks) :],
    )


def _create_task(entry: dict[str, Any], task_defaults: Mapping[str, dict[str, Any]]) -> Task:
    return build_task(TaskConfig(**entry), task_defaults.get(entry["name"], {}))


def _to_component_dict(spec: ComponentSpec) -> dict[str, Any]:
    return {"name": spec} if isinstance(spec, str) else dict(spec)


def _to_backbone_dict(
    spec: ComponentSpec, img_size: Size | None, pretrained: bool
) -> dict[str, Any]:
    size = {} if img_size is None else {"img_size": img_size}
    return {**size, "pretrained": pretrained, **_to_component_dict(spec)}


def _to_task_dicts(tasks: Sequence[ComponentSpec | Task]) -> list[dict[str, Any]]:
    return [
        {"name": task.name} if isinstance(task, Task) else _to_component_dict(task)
        for task in tasks
    ]


def _add_dummy_root(data: dict[str, Any]) -> dict[str, Any]:
    """Add a folder to datasets on disk, as `root` is required but does not affect the tasks."""
    return change_sets(name_sets(data), _add_root)


def _add_root(data: dict[str, Any]) -> dict[str, Any]:
    on_disk = registry.has_option(registry.get_class("data.datasets", data["name"]), "root")
    return {"root": ".", **data} if on_disk else data


def _raise_config_errors(values: Mapping[str, Any]) -> None:
    translated, renamed = translate_config(values)
    errors = [*(f"{old.path}: {old.message}" for old in renamed), *find_errors(translated)]
    if errors:
        raise ConfigError("\n".join(errors))
