"""What can be wrong in a configuration besides its types: names, options, tasks, weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from densemtl import components
from densemtl.errors import ConfigError
from densemtl.types import FUSION, SHARED

PACKAGES = {"data": "data", "decoder": "decoders", "head": "heads", "balancing": "balancing"}
"""{section: package of its components}."""

AUXILIARY = "auxiliary_tasks"
"""What a decoder that can learn further tasks calls the parameter for them, as the section does."""

TASK_KEYS = ("name", "kind", "metrics")
"""Keys of a task that are no options of its class."""

RESERVED = (SHARED, FUSION, "balancing")
"""Parameter groups that are no task's."""


def component_errors(values: Mapping[str, Any]) -> Iterator[str]:
    """Components that do not exist, and options that they do not take."""
    for section, package in PACKAGES.items():
        entry: Any = values.get(section)
        if _names_component(entry):
            yield from _option_errors(section, package, entry["name"], _without(entry, "name"))
    for where, entry in _entries(values, "trackers"):
        yield from _option_errors(where, "trackers", entry["name"], _without(entry, "name"))
    yield from _protocol_errors(values.get("protocol"))
    backbone = values.get("backbone")
    if isinstance(backbone, dict):
        from densemtl.models.backbone import Backbone

        yield from _invalid(Backbone, "backbone", _without(backbone, "name"))


def _option_errors(
    section: str, package: str, name: str, options: Mapping[str, Any]
) -> Iterator[str]:
    try:
        cls = components.find(package, name)
    except ConfigError as error:
        yield f"{section}.name: {error}"
        return
    yield from _invalid(cls, section, options)


def _protocol_errors(name: Any) -> Iterator[str]:
    if isinstance(name, str):
        try:
            components.find("metrics.protocols", name)
        except ConfigError as error:
            yield f"protocol: {error}"


def _invalid(cls: type[Any], where: str, options: Mapping[str, Any]) -> list[str]:
    try:
        components.parse_options(cls, options)
    except ValidationError as error:
        return components.describe(error, where, components.options_model(cls))
    return []


def task_errors(values: Mapping[str, Any]) -> Iterator[str]:
    """Tasks that the dataset does not offer, and what is said of tasks elsewhere."""
    if values.get("tasks") in ([], ()):
        yield "tasks: name at least one task"
    offered = _offered(values.get("data"))
    seen: set[str] = set()
    for where, entry in _task_entries(values):
        name = entry["name"]
        if name in seen:
            yield f"{where}: {name!r} is named twice"
        seen.add(name)
        yield from _metric_errors(where, entry)
        if not _can_name_a_module(name):
            yield f"{where}: {name!r} cannot name a task: take another word of a-z, 0-9, _"
        if offered is None:
            continue
        if name in offered:
            yield from _task_option_errors(where, entry, offered[name])
        else:
            known = components.suggest(name, offered)
            yield f"{where}: the dataset offers no {name!r}, {known}"
    if isinstance(values.get("tasks"), list | tuple):
        yield from _weight_errors(values.get("balancing"), seen)
    yield from _auxiliary_errors(values)


def _metric_errors(where: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Metrics that are added to a task; whether they fit it is found out when it is built."""
    if entry.get("metrics") and where.startswith(AUXILIARY):
        yield f"{where}.metrics: auxiliary tasks are not scored; leave metrics out"
        return
    for place, metric in _entries(entry, "metrics"):
        options = _without(metric, "name")
        yield from _option_errors(f"{where}.{place}", "metrics", metric["name"], options)


def _task_entries(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, entry) of every task that has a name, auxiliary ones included."""
    for section in ("tasks", AUXILIARY):
        yield from _entries(values, section)


def _entries(values: Mapping[str, Any], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, entry) of what a section lists."""
    entries = values.get(section)
    for index, raw in enumerate(entries if isinstance(entries, list | tuple) else ()):
        entry = {"name": raw} if isinstance(raw, str) else raw
        if _names_component(entry):
            yield f"{section}.{index}", entry


def _auxiliary_errors(values: Mapping[str, Any]) -> Iterator[str]:
    """Only some architectures can learn more tasks than they are asked for."""
    decoder = values.get("decoder")
    name = decoder.get("name") if isinstance(decoder, dict) else None
    if not values.get(AUXILIARY) or not isinstance(name, str):
        return
    try:
        cls = components.find("decoders", name)
    except ConfigError:
        return
    if not components.takes(cls, AUXILIARY):
        able = "use pad_net or mti_net, or leave them out"
        yield f"{AUXILIARY}: decoder {name!r} takes none: {able}"


def _can_name_a_module(name: str) -> bool:
    """Heads and parameter groups bear their task's name, so it must not be one of torch's own."""
    from torch.nn import ModuleDict

    taken = name in RESERVED or hasattr(ModuleDict, name) or name == "training"
    return name.isidentifier() and not taken


def _task_option_errors(
    where: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    kind = entry.get("kind") or defaults.get("kind") or entry["name"]
    if isinstance(kind, str):
        options = {**defaults, **_without(entry, *TASK_KEYS)}
        yield from _option_errors(where, "tasks", kind, _without(options, *TASK_KEYS))


def _weight_errors(balancing: Any, tasks: set[str]) -> Iterator[str]:
    weights = balancing.get("weights") if isinstance(balancing, dict) else None
    if isinstance(weights, dict):
        for name in weights:
            if name not in tasks:
                known = components.suggest(str(name), tasks)
                yield f"balancing.weights.{name}: a weight for no task, {known}"


def _offered(data: Any) -> dict[str, dict[str, Any]] | None:
    """What the dataset offers, or None while its own section is wrong."""
    if not _names_component(data):
        return None
    try:
        cls = components.find("data", data["name"])
        options = components.parse_options(cls, _without(data, "name"))
        offered: dict[str, dict[str, Any]] = cls.offers(**options)
    except (ConfigError, ValidationError):
        return None
    return offered


def _names_component(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _without(entry: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {str(name): value for name, value in entry.items() if name not in keys}
