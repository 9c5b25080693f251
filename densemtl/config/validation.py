"""Validation of names, options, tasks and loss weights in a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from densemtl import registry
from densemtl.config.curriculum import find_phase_errors
from densemtl.config.data_sets import MIXED, SET_KEYS, SETS
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
"""Section of the auxiliary tasks, and parameter of the decoders that support them."""

TASK_KEYS = ("name", "kind", "metrics", "computed_class_weights")
"""Keys of a task that are not options of its class."""

RESERVED_TASK_NAMES = (SHARED, FUSION, "balancing", "distill")
"""Names of parameter groups that belong to no task."""


@dataclass(frozen=True)
class _Resolved:
    """Component of a configuration after validation.

    Attributes:
        cls: class of the component; None if it does not exist.
        options: options converted to the types of the constructor; None if an option is wrong.
        errors: error messages, one line each.
    """

    cls: type[Any] | None = None
    options: dict[str, Any] | None = None
    errors: tuple[str, ...] = ()


def find_errors(values: Mapping[str, Any]) -> Iterator[str]:
    """Find components, options, tasks and loss weights that do not exist.

    Every component is looked up and its options are validated only once.

    Args:
        values: a configuration, or some of its sections; types may be wrong.

    Yields:
        One line per error, which starts with the key.
    """
    sections = {
        section: _resolve(section, package, values[section])
        for section, package in SECTION_PACKAGES.items()
        if _has_component_name(values.get(section))
    }
    for resolved in sections.values():
        yield from resolved.errors
    for path, entry in _iter_entries(values, "trackers"):
        yield from _resolve(path, "trackers", entry).errors
    data = sections.get("data")
    name = values["data"]["name"] if data is not None else ""
    if data is not None and data.cls is not None and ":" in name and not _is_dataset(data.cls):
        yield f"data.name: {name!r} is no dataset, which implements densemtl/data/base.py"
        sections["data"] = _Resolved()
    if set_errors := list(_set_errors(values.get("data"), data)):
        yield from set_errors
        sections["data"] = _Resolved()
    yield from _find_image_errors(sections.get("data"))
    yield from _protocol_errors(values.get("protocol"))
    backbone = values.get("backbone")
    if isinstance(backbone, dict):
        backbone_class = registry.get_class("backbones", "backbone")
        yield from _validate("backbone", backbone_class, _drop_key(backbone, "name")).errors
    yield from _task_errors(values, _get_available_tasks(sections.get("data")))
    yield from _find_auxiliary_errors(values, sections.get("decoder"))


def _resolve(
    path: str, package: str, entry: Mapping[str, Any], other_keys: Sequence[str] = ()
) -> _Resolved:
    try:
        cls = registry.get_class(package, entry["name"])
    except ConfigError as error:
        return _Resolved(errors=(f"{path}.name: {error}",))
    return _validate(path, cls, _drop_key(entry, "name", *other_keys), other_keys)


def _validate(
    path: str, cls: type[Any], options: Mapping[str, Any], other_keys: Sequence[str] = ()
) -> _Resolved:
    """Parse options; `name` and `other_keys` are valid keys next to them, not in `options`."""
    try:
        return _Resolved(cls, registry.parse_options(cls, options))
    except ConfigError as error:
        return _Resolved(errors=(f"{path}.name: {error}",))
    except ValidationError as error:
        model = registry.make_options_model(cls)
        lines = registry.format_validation_errors(error, path, model, ("name", *other_keys))
        return _Resolved(cls, errors=tuple(lines))


def _set_errors(data: Any, mixture: _Resolved | None) -> Iterator[str]:
    """Yield errors of the sets of a mixture, which `_resolve` does not find."""
    sets = data.get(SETS) if isinstance(data, dict) and data.get("name") == MIXED else None
    if not isinstance(sets, dict):
        return
    option_errors = [
        error for name, entry in sets.items() for error in _set_option_errors(name, entry)
    ]
    yield from option_errors
    if not option_errors and mixture is not None and mixture.cls is not None and mixture.options:
        try:
            mixture.cls.task_defaults(**mixture.options)
        except ConfigError as error:
            yield str(error)


def _set_option_errors(name: str, entry: Any) -> Iterator[str]:
    if _has_component_name(entry):  # other errors are reported with the options of the mixture
        path = f"data.{SETS}.{name}"
        if entry["name"] == MIXED:
            yield f"{path}.name: a set cannot be {MIXED!r}; list its sets instead"
            return
        resolved = _resolve(path, "data.datasets", entry, SET_KEYS[1:])
        yield from resolved.errors
        if resolved.cls is not None and ":" in entry["name"] and not _is_dataset(resolved.cls):
            yield f"{path}.name: {entry['name']!r} is no dataset, see densemtl/data/base.py"


def _is_dataset(cls: type[Any]) -> bool:
    """Return whether a class states its tasks; wrappers of other datasets do not."""
    try:
        return isinstance(cls.task_defaults(), dict)
    except (AttributeError, NotImplementedError):
        return False
    except Exception:  # needs options, or is wrong in a way that the real call reports
        return True


def _find_image_errors(data: _Resolved | None) -> Iterator[str]:
    """Yield an error if the options that describe the images do not fit together."""
    make_format = getattr(data.cls, "image_format", None) if data else None
    if data is None or data.options is None or make_format is None:
        return
    try:
        make_format(**data.options)
    except ConfigError as error:
        yield str(error)


def _protocol_errors(name: Any) -> Iterator[str]:
    if isinstance(name, str):
        try:
            registry.get_class("metrics.protocols", name)
        except ConfigError as error:
            yield f"protocol: {error}"


def _task_errors(
    values: Mapping[str, Any], task_defaults: Mapping[str, dict[str, Any]] | None
) -> Iterator[str]:
    """Yield errors of tasks and of loss weights for tasks."""
    if values.get("tasks") in ([], ()):
        yield "tasks: list at least one task"
    task_names: set[str] = set()
    for path, entry in _iter_task_entries(values):
        name = entry["name"]
        if name in task_names:
            yield f"{path}: {name!r} is listed twice"
        task_names.add(name)
        yield from _metric_errors(path, entry)
        if not _is_valid_module_name(name):
            yield f"{path}: {name!r} is not a valid task name: use another word of a-z, 0-9, _"
        if task_defaults is None:
            continue
        if name in task_defaults:
            yield from _find_task_option_errors(path, entry, task_defaults[name])
        else:
            hint = suggest(name, task_defaults)
            yield f"{path}: the dataset has no task {name!r}, {hint}"
    if isinstance(values.get("tasks"), list | tuple):
        yield from _find_weight_errors(values.get("balancing"), task_names)
        yield from find_phase_errors(values.get("curriculum"), task_names)


def _find_task_option_errors(
    path: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    kind = entry.get("kind") or defaults.get("kind") or entry["name"]
    if isinstance(kind, str):
        options = _drop_key({**defaults, **entry}, *TASK_KEYS)
        yield from _resolve(path, "tasks", {"name": kind, **options}).errors


def _metric_errors(path: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield errors of added metrics. Whether a metric fits the task is checked when it is built."""
    if entry.get("metrics") and path.startswith(AUXILIARY_TASKS):
        yield f"{path}.metrics: auxiliary tasks are not evaluated; remove metrics"
        return
    for metric_path, metric in _iter_entries(entry, "metrics"):
        yield from _resolve(f"{path}.{metric_path}", "metrics", metric).errors


def _find_weight_errors(balancing: Any, tasks: set[str]) -> Iterator[str]:
    weights = balancing.get("weights") if isinstance(balancing, dict) else None
    if isinstance(weights, dict):
        for name in weights:
            if name not in tasks:
                hint = suggest(str(name), tasks)
                yield f"balancing.weights.{name}: no task {str(name)!r}, {hint}"


def _find_auxiliary_errors(values: Mapping[str, Any], decoder: _Resolved | None) -> Iterator[str]:
    """Yield an error if the decoder does not support auxiliary tasks."""
    cls = decoder.cls if decoder else None
    if (
        values.get(AUXILIARY_TASKS)
        and cls is not None
        and not registry.has_option(cls, AUXILIARY_TASKS)
    ):
        supporting = [
            name
            for name in registry.list_names("decoders")
            if registry.has_option(registry.get_class("decoders", name), AUXILIARY_TASKS)
        ]
        fix = f"use {', '.join(supporting)}, or remove them"
        decoder_name = values["decoder"]["name"]
        yield f"{AUXILIARY_TASKS}: not supported by decoder {decoder_name!r}: {fix}"


def _get_available_tasks(data: _Resolved | None) -> dict[str, dict[str, Any]] | None:
    """Return {task: default options} of the dataset, or None if its section is wrong."""
    if data is None or data.cls is None or data.options is None:
        return None
    try:
        task_defaults: dict[str, dict[str, Any]] = data.cls.task_defaults(**data.options)
    except ConfigError:
        return None
    return task_defaults


def _iter_task_entries(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, entry) of every task that has a name, including auxiliary tasks."""
    for section in ("tasks", AUXILIARY_TASKS):
        yield from _iter_entries(values, section)


def _iter_entries(values: Mapping[str, Any], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, entry) of every component in a list."""
    entries = values.get(section)
    for index, raw in enumerate(entries if isinstance(entries, list | tuple) else ()):
        entry = {"name": raw} if isinstance(raw, str) else raw
        if _has_component_name(entry):
            yield f"{section}.{index}", entry


def _is_valid_module_name(name: str) -> bool:
    """Return whether a task name can name a submodule and a parameter group.

    Attributes of `torch.nn.ModuleDict` cannot be names of submodules.
    """
    from torch.nn import ModuleDict

    is_reserved = name in RESERVED_TASK_NAMES or hasattr(ModuleDict, name) or name == "training"
    return name.isidentifier() and not is_reserved


def _has_component_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _drop_key(entry: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {str(name): value for name, value in entry.items() if name not in keys}
