"""Tasks and networks by name, for programs that bring their own data and training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from densemtl import registry
from densemtl.config.experiment import ComponentConfig, TaskConfig
from densemtl.config.translation import translate_config
from densemtl.config.validation import find_errors
from densemtl.errors import ConfigError
from densemtl.factory import build_model_from_components, build_task, get_task_defaults
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.tasks.base import Task
from densemtl.types import Size

ComponentSpec = str | Mapping[str, Any]
"""A component: its name, or {"name": .., option: ..}; `package.module:Class` for one's own."""


def create_tasks(
    tasks: Sequence[ComponentSpec | Task], data: ComponentSpec | None = None
) -> list[Task]:
    """Tasks by name.

    Args:
        tasks: names, {"name": .., "kind": .., option: ..}, or tasks, which stay as they are.
        data: a dataset whose definitions (class names, say) they take; it need not be on disk.

    Raises:
        ConfigError: no such task, or a wrong option; one line each.
    """
    named = [_to_component_dict(task) for task in tasks if not isinstance(task, Task)]
    dataset = {} if data is None else {"data": _add_dummy_root(_to_component_dict(data))}
    _refuse_errors({**dataset, **({"tasks": named} if named else {})})
    offered = get_task_defaults(ComponentConfig(**dataset["data"])) if dataset else {}
    return [
        task if isinstance(task, Task) else _create_task(_to_component_dict(task), offered)
        for task in tasks
    ]


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
    """A network by the names of its parts.

    Args:
        decoder: the architecture; see `list_decoders`.
        backbone: any timm model that gives feature maps.
        tasks: what is predicted; as for `create_tasks`.
        auxiliary_tasks: learnt besides, by architectures that can.
        head: each task's; see `list_heads`.
        data: as for `create_tasks`.
        img_size: (height, width) of the input, for backbones that are built for one size.
        pretrained: start from timm's weights.

    Returns:
        Takes Bx3xHxW RGB in 0..255, uint8 or float, of any size; gives `Predictions`.

    Raises:
        ConfigError: no such part, or a wrong option; one line each.
        ModelError: the parts do not go together, or weights cannot be had.
    """
    size = {} if img_size is None else {"img_size": img_size}
    sized = {**size, "pretrained": pretrained, **_to_component_dict(backbone)}
    parts = {
        "decoder": _to_component_dict(decoder),
        "head": _to_component_dict(head),
        "backbone": sized,
    }
    named = {"tasks": _to_task_dicts(tasks), "auxiliary_tasks": _to_task_dicts(auxiliary_tasks)}
    _refuse_errors({**parts, **named})
    built = create_tasks([*tasks, *auxiliary_tasks], data)
    return build_model_from_components(
        ComponentConfig(**parts["backbone"]),
        ComponentConfig(**parts["head"]),
        ComponentConfig(**parts["decoder"]),
        built[: len(tasks)],
        built[len(tasks) :],
    )


def _create_task(entry: dict[str, Any], task_defaults: Mapping[str, dict[str, Any]]) -> Task:
    return build_task(TaskConfig(**entry), task_defaults.get(entry["name"], {}))


def _to_component_dict(spec: ComponentSpec) -> dict[str, Any]:
    return {"name": spec} if isinstance(spec, str) else dict(spec)


def _to_task_dicts(tasks: Sequence[ComponentSpec | Task]) -> list[dict[str, Any]]:
    return [
        {"name": task.name} if isinstance(task, Task) else _to_component_dict(task)
        for task in tasks
    ]


def _add_dummy_root(data: dict[str, Any]) -> dict[str, Any]:
    """Datasets on disk must be given a folder, which what they offer does not depend on."""
    on_disk = registry.has_option(registry.get_class("data.datasets", data["name"]), "root")
    return {"root": ".", **data} if on_disk else data


def _refuse_errors(values: Mapping[str, Any]) -> None:
    translated, renamed = translate_config(values)
    errors = [*(f"{old.path}: {old.message}" for old in renamed), *find_errors(translated)]
    if errors:
        raise ConfigError("\n".join(errors))
