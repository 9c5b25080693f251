"""What can be wrong in a configuration besides its types: names, options, tasks, weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from densemtl import registry
from densemtl.errors import ConfigError, suggest
from densemtl.types import FUSION, SHARED

SECTION_PACKAGES = {
    "data": "data.datasets",
    "decoder": "decoders",
    "head": "heads",
    "balancing": "balancing",
}
"""{section: package of its components}."""

AUXILIARY_TASKS = "auxiliary_tasks"
"""What a decoder that can learn further tasks calls the parameter for them, as the section does."""

TASK_KEYS = ("name", "kind", "metrics")
"""Keys of a task that are no options of its class."""

RESERVED_TASK_NAMES = (SHARED, FUSION, "balancing")
"""Parameter groups that are no task's."""


@dataclass(frozen=True)
class _Resolved:
    """A component of a configuration.

    Attributes:
        cls: its class, None if there is no such component.
        options: of the types that the constructor takes, None if one of them is wrong.
        errors: one line each.
    """

    cls: type[Any] | None = None
    options: dict[str, Any] | None = None
    errors: tuple[str, ...] = ()


def find_errors(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each component, option, task or weight that does not exist.

    Every component is looked up, and its options are validated, once.

    Args:
        values: a configuration, or some of its sections; types may be wrong.
    """
    sections = {
        section: _resolve(section, package, values[section])
        for section, package in SECTION_PACKAGES.items()
        if _has_component_name(values.get(section))
    }
    for resolved in sections.values():
        yield from resolved.errors
    for where, entry in _iter_entries(values, "trackers"):
        yield from _resolve(where, "trackers", entry).errors
    yield from _protocol_errors(values.get("protocol"))
    backbone = values.get("backbone")
    if isinstance(backbone, dict):
        backbone_class = registry.get_class("backbones", "backbone")
        yield from _validate("backbone", backbone_class, _drop_key(backbone, "name")).errors
    yield from _task_errors(values, _get_available_tasks(sections.get("data")))
    yield from _find_auxiliary_errors(values, sections.get("decoder"))


def _resolve(where: str, package: str, entry: Mapping[str, Any]) -> _Resolved:
    try:
        cls = registry.get_class(package, entry["name"])
    except ConfigError as error:
        return _Resolved(errors=(f"{where}.name: {error}",))
    return _validate(where, cls, _drop_key(entry, "name"))


def _validate(where: str, cls: type[Any], options: Mapping[str, Any]) -> _Resolved:
    try:
        return _Resolved(cls, registry.parse_options(cls, options))
    except ValidationError as error:
        lines = registry.format_validation_errors(error, where, registry.make_options_model(cls))
        return _Resolved(cls, errors=tuple(lines))


def _protocol_errors(name: Any) -> Iterator[str]:
    if isinstance(name, str):
        try:
            registry.get_class("metrics.protocols", name)
        except ConfigError as error:
            yield f"protocol: {error}"


def _task_errors(
    values: Mapping[str, Any], offered: Mapping[str, dict[str, Any]] | None
) -> Iterator[str]:
    """Tasks that the dataset does not offer, and what is said of tasks elsewhere."""
    if values.get("tasks") in ([], ()):
        yield "tasks: name at least one task"
    task_names: set[str] = set()
    for where, entry in _iter_task_entries(values):
        name = entry["name"]
        if name in task_names:
            yield f"{where}: {name!r} is named twice"
        task_names.add(name)
        yield from _metric_errors(where, entry)
        if not _is_valid_module_name(name):
            yield f"{where}: {name!r} cannot name a task: take another word of a-z, 0-9, _"
        if offered is None:
            continue
        if name in offered:
            yield from _find_task_option_errors(where, entry, offered[name])
        else:
            hint = suggest(name, offered)
            yield f"{where}: the dataset offers no {name!r}, {hint}"
    if isinstance(values.get("tasks"), list | tuple):
        yield from _find_weight_errors(values.get("balancing"), task_names)


def _find_task_option_errors(
    path: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    kind = entry.get("kind") or defaults.get("kind") or entry["name"]
    if isinstance(kind, str):
        options = _drop_key({**defaults, **entry}, *TASK_KEYS)
        yield from _resolve(path, "tasks", {"name": kind, **options}).errors


def _metric_errors(where: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Metrics that are added to a task; whether they fit it is found out when it is built."""
    if entry.get("metrics") and where.startswith(AUXILIARY_TASKS):
        yield f"{where}.metrics: auxiliary tasks are not scored; leave metrics out"
        return
    for entry_path, metric in _iter_entries(entry, "metrics"):
        yield from _resolve(f"{where}.{entry_path}", "metrics", metric).errors


def _find_weight_errors(balancing: Any, tasks: set[str]) -> Iterator[str]:
    weights = balancing.get("weights") if isinstance(balancing, dict) else None
    if isinstance(weights, dict):
        for name in weights:
            if name not in tasks:
                hint = suggest(str(name), tasks)
                yield f"balancing.weights.{name}: a weight for no task, {hint}"


def _find_auxiliary_errors(values: Mapping[str, Any], decoder: _Resolved | None) -> Iterator[str]:
    """Only some architectures can learn more tasks than they are asked for."""
    cls = decoder.cls if decoder else None
    if (
        values.get(AUXILIARY_TASKS)
        and cls is not None
        and not registry.has_option(cls, AUXILIARY_TASKS)
    ):
        able = "use pad_net or mti_net, or leave them out"
        yield f"{AUXILIARY_TASKS}: decoder {values['decoder']['name']!r} takes none: {able}"


def _get_available_tasks(data: _Resolved | None) -> dict[str, dict[str, Any]] | None:
    """{task: its default options} of the dataset, or None while its own section is wrong."""
    if data is None or data.cls is None or data.options is None:
        return None
    try:
        offered: dict[str, dict[str, Any]] = data.cls.task_defaults(**data.options)
    except ConfigError:
        return None
    return offered


def _iter_task_entries(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, entry) of every task that has a name, auxiliary ones included."""
    for section in ("tasks", AUXILIARY_TASKS):
        yield from _iter_entries(values, section)


def _iter_entries(values: Mapping[str, Any], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, entry) of what a section lists."""
    entries = values.get(section)
    for index, raw in enumerate(entries if isinstance(entries, list | tuple) else ()):
        entry = {"name": raw} if isinstance(raw, str) else raw
        if _has_component_name(entry):
            yield f"{section}.{index}", entry


def _is_valid_module_name(name: str) -> bool:
    """Heads and parameter groups bear their task's name, so it must not be one of torch's own."""
    from torch.nn import ModuleDict

    taken = name in RESERVED_TASK_NAMES or hasattr(ModuleDict, name) or name == "training"
    return name.isidentifier() and not taken


def _has_component_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _drop_key(entry: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {str(name): value for name, value in entry.items() if name not in keys}
