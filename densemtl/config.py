"""An experiment: the whole configuration, strict and frozen, with every error told at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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

PACKAGES = {"data": "data", "decoder": "decoders", "head": "heads", "balancing": "balancing"}
"""{section: package of its components}."""

AUXILIARY = "auxiliary_tasks"
"""What a decoder that can learn further tasks calls the parameter for them, as the section does."""

SHARED = "shared"
"""The parameter group of what all tasks use."""

RESERVED = (SHARED, "fusion", "balancing")
"""Parameter groups that are no task's."""

HARMLESS = {
    "data": ("root",),
    "loader": ("workers", "eval_batch_size", "cache"),
    "train": ("panels", "panels_every", "log_every", "checkpoint_steps"),
}
"""{section: keys that change where, how fast or how visibly a run goes, but no number of it}."""

Baselines = Literal["auto", "none"] | dict[str, Path]
"""Single-task references: trained where they are missing, none, or {task: run or results file}."""

InitFrom = Literal["none", "baselines"] | dict[str, Path]
"""Where networks of one task each start from: the baselines' weights, or {task: run or file}."""


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

    seed: Annotated[int, Field(ge=0)] = 0
    protocol: ProtocolName = "survey"
    tasks: tuple[TaskEntry, ...]
    auxiliary_tasks: tuple[TaskEntry, ...] = ()
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
    init_from: InitFrom = "none"

    def task_names(self) -> list[str]:
        """The tasks' names in the order given."""
        return [task.name for task in self.tasks]

    def learnt_names(self) -> list[str]:
        """The tasks, then the auxiliary ones, which are learnt but neither scored nor shown."""
        return [task.name for task in (*self.tasks, *self.auxiliary_tasks)]

    def single_task(self, name: str) -> Experiment:
        """The experiment that is this one's reference for a task: the same, with nothing shared."""
        scales = {
            group: self.optim.lr_scale[group]
            for group in (SHARED, name)
            if group in self.optim.lr_scale
        }
        alone = {
            "tasks": tuple(task for task in self.tasks if task.name == name),
            "auxiliary_tasks": (),
            "decoder": Component(name="single_task"),
            "balancing": Component(name="fixed"),
            "optim": self.optim.model_copy(update={"lr_scale": scales}),
            "baselines": "none",
            "init_from": "none",
        }
        return self.model_copy(update=alone)

    def material(self) -> dict[str, Any]:
        """The values that can change a number, whatever machine and folder the run is on."""
        values = self.model_dump(mode="json")
        for section, keys in HARMLESS.items():
            values[section] = {k: v for k, v in values[section].items() if k not in keys}
        values.pop("baselines")
        return values

    def fingerprint(self) -> str:
        """A short hash of `material()`."""
        text = json.dumps(self.material(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

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
    for section, package in PACKAGES.items():
        entry: Any = values.get(section)
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
    if values.get("tasks") in ([], ()):
        yield "tasks: name at least one task"
    offered = _offered(values.get("data"))
    seen: set[str] = set()
    for where, entry in _task_entries(values):
        name = entry["name"]
        if name in seen:
            yield f"{where}: {name!r} is named twice"
        seen.add(name)
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


def _task_entries(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, entry) of every task that has a name, auxiliary ones included."""
    for section in ("tasks", AUXILIARY):
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
        options = {**defaults, **_without(entry, "name")}
        yield from _option_errors(where, "tasks", kind, _without(options, "kind"))


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
