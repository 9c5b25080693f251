"""From a name in a configuration to a class: the file of that name, and nothing else, is imported.

`densemtl/<package>/<name>.py` holds the class of the same name (mti_net.py holds MTINet); a
component of several files is `<name>/<name>.py`. A user's own class is `package.module:Class`. What
a user may set are the constructor's keyword-only parameters; they are checked against its
annotations.
"""

from __future__ import annotations

import importlib
import inspect
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from densemtl.errors import ConfigError, suggest

OPTIONS_MODEL_CONFIG = ConfigDict(
    extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=()
)

NOUNS = ("dataset", "head", "metric", "protocol")
"""What the name of a component's class may end in, beyond the name of its file."""


def list_names(package: str) -> list[str]:
    """The components of a package, found by reading file names and class lines; imports none."""
    return sorted(_modules(package))


def _modules(package: str) -> dict[str, str]:
    """{component: its module inside the package}."""
    folder = Path(__file__).parent.joinpath(*package.split("."))
    files = [file for file in folder.glob("[!_]*.py") if file.stem != "base"]
    files += [file for file in folder.glob("*/*.py") if file.stem == file.parent.name]
    return {
        file.stem: ".".join(file.relative_to(folder).with_suffix("").parts)
        for file in files
        if _has_component(file)
    }


def _has_component(file: Path) -> bool:
    classes = re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    return any(_is_matching_name(name, file.stem) for name in classes)


def _is_matching_name(class_name: str, file_name: str) -> bool:
    """Whether a class is the component of a file: `fpn.py` may hold `FPN` or `FPNHead`."""
    name, stem = class_name.lower(), file_name.replace("_", "").lower()
    return name == stem or name in {stem + noun for noun in NOUNS}


def get_class(package: str, name: str) -> type[Any]:
    """The class of a component.

    Raises:
        ConfigError: no such component; names the nearest.
    """
    if ":" in name:
        return _import_custom(name)
    modules = _modules(package)
    if name not in modules:
        raise ConfigError(f"no {name!r} in {package.rpartition('.')[2]}: {suggest(name, modules)}")
    module = importlib.import_module(f"densemtl.{package}.{modules[name]}")
    return next(
        value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and _is_matching_name(key, name)
    )


def _import_custom(path: str) -> type[Any]:
    module_name, _, class_name = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"cannot import {path!r}: {error}") from error
    if not inspect.isclass(cls):
        raise ConfigError(f"{path!r} is not a class")
    return cls


def get_name(package: str, cls: type[Any]) -> str:
    """Return the name by which `find` returns a class."""
    home, _, stem = cls.__module__.rpartition(".")
    inside = home == f"densemtl.{package}" or home == f"densemtl.{package}.{stem}"
    return stem if inside else f"{cls.__module__}:{cls.__qualname__}"


def make_options_model(cls: type[Any]) -> type[BaseModel]:
    """Return a strict pydantic model of a component's options, with their types and limits."""
    fields: dict[str, Any] = {}
    for definer in reversed(option_classes(cls)):
        hints = get_type_hints(definer.__init__, include_extras=True)
        for name, parameter in inspect.signature(definer.__init__).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[name] = (hints[name], Field(default))
    return create_model(cls.__name__, __config__=OPTIONS_MODEL_CONFIG, **fields)


def option_classes(cls: type[Any]) -> list[type[Any]]:
    """Return the classes whose constructors define a component's options, subclasses first.

    These are the class that defines the constructor and, where it passes `**options` on, those
    above it up to the first that does not.
    """
    classes: list[type[Any]] = []
    for definer in cls.__mro__:
        constructor = vars(definer).get("__init__")
        if constructor is None:
            continue
        classes.append(definer)
        parameters = inspect.signature(constructor).parameters.values()
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return classes


def has_option(cls: type[Any], name: str) -> bool:
    """Whether a constructor has a parameter of that name."""
    return any(
        name in inspect.signature(definer.__init__).parameters for definer in option_classes(cls)
    )


def parse_options(cls: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the right types for `cls(..., **options)`; only those that were given.

    Raises:
        pydantic.ValidationError: an unknown option, a wrong type, or a value beyond its limits.
    """
    parsed = make_options_model(cls).model_validate(dict(options))
    return {name: getattr(parsed, name) for name in parsed.model_fields_set}


def create(package: str, name: str, *args: Any, options: Mapping[str, Any]) -> Any:
    """Build a component from what the framework gives and what the user set.

    Raises:
        ConfigError: no such component, or options that it does not take.
    """
    cls = get_class(package, name)
    try:
        return cls(*args, **parse_options(cls, options))
    except ValidationError as error:
        raise ConfigError(
            "\n".join(format_validation_errors(error, name, make_options_model(cls)))
        ) from error


def format_validation_errors(
    error: ValidationError, prefix: str, model: type[BaseModel]
) -> list[str]:
    """One line an error: where, what, and the nearest valid name of an unknown key."""
    lines = []
    for item in error.errors():
        path = ".".join(
            " ".join(str(part).split()) for part in (prefix, *item["loc"]) if part != ""
        )
        if item["type"] == "extra_forbidden":
            valid_keys = list_known_keys(model, item["loc"][:-1])
            lines.append(f"{path}: unknown key, {suggest(str(item['loc'][-1]), valid_keys)}")
        elif item["type"] == "missing":
            lines.append(f"{path}: must be given")
        elif item["type"] in ("too_short", "too_long"):  # which says of itself what it was given
            lines.append(f"{path}: {item['msg']}")
        elif item["type"] == "model_type":
            lines.append(f"{path}: give keys and values, not {reprlib.repr(item['input'])}")
        else:
            lines.append(f"{path}: {item['msg']}, not {reprlib.repr(item['input'])}")
    return lines


def list_known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that are valid at a path inside a model."""
    for part in path:
        field = model.model_fields.get(str(part))
        nested = _find_nested_model(field.annotation) if field else None
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _find_nested_model(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next(
        (item for item in candidates if inspect.isclass(item) and issubclass(item, BaseModel)), None
    )


def list_decoders() -> list[str]:
    """Architectures."""
    return list_names("decoders")


def list_heads() -> list[str]:
    """Task heads."""
    return list_names("heads")


def list_tasks() -> list[str]:
    """Tasks, and the generic kinds that tasks of one's own are made from."""
    return list_names("tasks")


def list_datasets() -> list[str]:
    """Datasets."""
    return list_names("data.datasets")


def list_balancing() -> list[str]:
    """Rules that weigh losses or gradients."""
    return list_names("balancing")


def list_trackers() -> list[str]:
    """What can show a run while it goes."""
    return list_names("trackers")


def list_metrics() -> list[str]:
    """Metrics, which can be added to a task."""
    return list_names("metrics")


def list_protocols() -> list[str]:
    """Protocols, each of which scores every task by metrics of its own."""
    return list_names("metrics.protocols")
