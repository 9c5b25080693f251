"""Tasks and networks by name, for programs that bring their own data and training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from densemtl import registry
from densemtl.factory import assemble, build_task, offers
from densemtl.config.validation import find_errors
from densemtl.config.experiment import Component, TaskEntry
from densemtl.errors import ConfigError
from densemtl.models.multi_task_model import DenseModel
from densemtl.config.renamed_keys import translate_config
from densemtl.tasks.base import Task
from densemtl.types import Size

Named = str | Mapping[str, Any]
"""A component: its name, or {"name": .., option: ..}; `package.module:Class` for one's own."""


def create_tasks(tasks: Sequence[Named | Task], data: Named | None = None) -> list[Task]:
    """Tasks by name.

    Args:
        tasks: names, {"name": .., "kind": .., option: ..}, or tasks, which stay as they are.
        data: a dataset whose definitions (class names, say) they take; it need not be on disk.

    Raises:
        ConfigError: no such task, or a wrong option; one line each.
    """
    named = [_entry(task) for task in tasks if not isinstance(task, Task)]
    dataset = {} if data is None else {"data": _anywhere(_entry(data))}
    _refuse_errors({**dataset, **({"tasks": named} if named else {})})
    offered = offers(Component(**dataset["data"])) if dataset else {}
    return [
        task if isinstance(task, Task) else _create_task(_entry(task), offered) for task in tasks
    ]


def create_model(
    decoder: Named,
    *,
    backbone: Named,
    tasks: Sequence[Named | Task],
    auxiliary_tasks: Sequence[Named | Task] = (),
    head: Named = "fpn",
    data: Named | None = None,
    img_size: Size | None = None,
    pretrained: bool = False,
) -> DenseModel:
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
    sized = {**size, "pretrained": pretrained, **_entry(backbone)}
    parts = {"decoder": _entry(decoder), "head": _entry(head), "backbone": sized}
    named = {"tasks": _entries(tasks), "auxiliary_tasks": _entries(auxiliary_tasks)}
    _refuse_errors({**parts, **named})
    built = create_tasks([*tasks, *auxiliary_tasks], data)
    return assemble(
        Component(**parts["backbone"]),
        Component(**parts["head"]),
        Component(**parts["decoder"]),
        built[: len(tasks)],
        built[len(tasks) :],
    )


def _create_task(entry: dict[str, Any], offered: Mapping[str, dict[str, Any]]) -> Task:
    return build_task(TaskEntry(**entry), offered.get(entry["name"], {}))


def _entry(named: Named) -> dict[str, Any]:
    return {"name": named} if isinstance(named, str) else dict(named)


def _entries(tasks: Sequence[Named | Task]) -> list[dict[str, Any]]:
    return [{"name": task.name} if isinstance(task, Task) else _entry(task) for task in tasks]


def _anywhere(data: dict[str, Any]) -> dict[str, Any]:
    """Datasets on disk must be given a folder, which what they offer does not depend on."""
    on_disk = registry.takes(registry.find("data", data["name"]), "root")
    return {"root": ".", **data} if on_disk else data


def _refuse_errors(values: Mapping[str, Any]) -> None:
    translated, renamed = translate_config(values)
    errors = [*(f"{old.path}: {old.message}" for old in renamed), *find_errors(translated)]
    if errors:
        raise ConfigError("\n".join(errors))
