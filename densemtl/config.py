"""An experiment: the whole configuration, strict and frozen, with every error told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from densemtl import components, configfile
from densemtl.configfile import Document
from densemtl.errors import ConfigError
from densemtl.settings import (
    AugmentSettings,
    InputSettings,
    LoaderSettings,
    OptimSettings,
    ScheduleSettings,
    Section,
    TrainSettings,
)
from densemtl.types import ProtocolName

Baselines = Literal["auto", "none"] | dict[str, Path]


class Component(BaseModel):
    """A component by name, with its options beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What was set besides the name."""
        return dict(self.model_extra or {})


class TaskEntry(Component):
    """A task: `semseg`, or {name: semseg, option: ...}, or a name of one's own with a kind."""

    kind: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Experiment(Section):
    """One run: what is learnt, from what, by which network, how."""

    seed: int = 0
    protocol: ProtocolName = "survey"
    tasks: tuple[TaskEntry, ...]
    data: Component
    input: InputSettings = InputSettings()
    augment: AugmentSettings = AugmentSettings()
    loader: LoaderSettings = LoaderSettings()
    backbone: Component
    decoder: Component
    head: Component
    balancing: Component = Component(name="fixed")
    optim: OptimSettings = OptimSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    train: TrainSettings = TrainSettings()
    baselines: Baselines = "none"

    def task_names(self) -> list[str]:
        """The tasks' names in the order given."""
        return [task.name for task in self.tasks]

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that reads back to an equal experiment."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_experiment(file: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read, merge and check a configuration file.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    return check(configfile.load(file, overrides))


def check(document: Document) -> Experiment:
    """A merged mapping -> an experiment whose every name and option exists.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    errors = [*_structure_errors(document.values), *_component_errors(document.values)]
    errors += list(_task_errors(document.values))
    if errors:
        lines = [f"{document.origin(error.split(':')[0])}: {error}" for error in errors]
        raise ConfigError("\n".join(lines))
    return Experiment.model_validate(document.values)


def _structure_errors(values: Mapping[str, Any]) -> list[str]:
    try:
        Experiment.model_validate(values)
    except ValidationError as error:
        return components.describe(error, "", Experiment)
    return []


def _component_errors(values: Mapping[str, Any]) -> Iterator[str]:
    for section, package in (
        ("data", "data"),
        ("decoder", "decoders"),
        ("head", "heads"),
        ("balancing", "balancing"),
    ):
        entry = values.get(section)
        if _names_component(entry):
            yield from _option_errors(section, package, entry["name"], _without(entry, "name"))
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


def _invalid(cls: type[Any], where: str, options: Mapping[str, Any]) -> list[str]:
    try:
        components.parse_options(cls, options)
    except ValidationError as error:
        return components.describe(error, where, components.options_model(cls))
    return []


def _task_errors(values: Mapping[str, Any]) -> Iterator[str]:
    entries = values.get("tasks")
    if not isinstance(entries, list | tuple):
        return
    if not entries:
        yield "tasks: name at least one task"
    offered = _offered(values.get("data"))
    seen: set[str] = set()
    for index, raw in enumerate(entries):
        entry = {"name": raw} if isinstance(raw, str) else raw
        if not _names_component(entry):
            continue
        name = entry["name"]
        if name in seen:
            yield f"tasks.{index}: {name!r} is named twice"
        seen.add(name)
        if offered is not None and name not in offered:
            known = components.suggest(name, offered)
            yield f"tasks.{index}: the dataset offers no {name!r}, {known}"
        else:
            defaults = (offered or {}).get(name, {})
            own = _without(entry, "name")
            merged = {**defaults, **own}
            kind = merged.pop("kind", None) or name
            yield from _option_errors(f"tasks.{index}", "tasks", kind, merged)
    yield from _weight_errors(values.get("balancing"), seen)


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


def _without(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {str(name): value for name, value in entry.items() if name != key}


def json_schema() -> dict[str, Any]:
    """A JSON schema for editors, with the names and options of every component."""
    schema = Experiment.model_json_schema()
    for section, package in (
        ("data", "data"),
        ("decoder", "decoders"),
        ("head", "heads"),
        ("balancing", "balancing"),
    ):
        variants = [_component_schema(package, name) for name in components.names(package)]
        schema["properties"][section] = {"anyOf": variants}
    schema["properties"]["base"] = {"type": "string", "description": "a file to inherit from"}
    return schema


def _component_schema(package: str, name: str) -> dict[str, Any]:
    options = components.options_model(components.find(package, name)).model_json_schema()
    options["properties"] = {"name": {"const": name}, **options.get("properties", {})}
    options["required"] = ["name", *options.get("required", [])]
    return {**options, "title": name}
