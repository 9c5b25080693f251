"""Lookup of components by name, and validation of their options.

A component is a class in `densemtl/<package>/<name>.py` that is named after the file: `mti_net.py`
contains `MTINet`. A component of several files is in `<name>/<name>.py`. `package.module:Class`
names a custom class. Only the module of the requested component is imported. The options of a
component are the keyword-only parameters of its constructor; they are validated against the type
annotations.

Example:
    >>> from densemtl import registry
    >>> registry.get_class("heads", "linear").__name__
    'LinearHead'
    >>> registry.parse_options(registry.get_class("heads", "fpn"), {"width": 64})
    {'width': 64}
"""

from __future__ import annotations

import importlib
import inspect
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from textwrap import shorten
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from densemtl.errors import ConfigError, shorten_error, suggest

OPTIONS_MODEL_CONFIG = ConfigDict(
    extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=()
)

_OPTIONS_MODELS: dict[type[Any], type[BaseModel]] = {}
"""{component: model of its options}."""

_ALLOWS_CUSTOM_CODE: ContextVar[bool] = ContextVar("allows_custom_code", default=True)
"""Whether `get_class` imports custom classes: yes for the user's own configuration."""

BASES = {
    "balancing": "densemtl.balancing.base:Balancer",
    "data.datasets": "densemtl.data.base:DenseDataset",
    "decoders": "densemtl.decoders.base:Decoder",
    "heads": "torch.nn:Module",
    "tasks": "densemtl.tasks.base:Task",
    "trackers": "densemtl.trackers.base:Tracker",
}
"""{package: base class of its components}; `metrics.create` and `losses.options` have others."""

NOUNS = ("dataset", "head", "loss", "metric", "protocol")
"""Suffixes that the class of a component may have in addition to the name of its file."""


def list_names(package: str) -> list[str]:
    """List the components of a package by scanning its files, without importing them.

    Args:
        package: package inside densemtl, such as `decoders` or `data.datasets`.

    Returns:
        Sorted names.

    Example:
        >>> list_names("heads")
        ['deeplabv3', 'fpn', 'hrnetv2', 'linear']
    """
    return sorted(_find_modules(package))


@cache  # reading all files takes longer than most calls of `create`
def _find_modules(package: str) -> Mapping[str, str]:
    """Return {component: its module inside the package}."""
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
    """Return whether a class is the component of a file: `fpn.py` may hold `FPN` or `FPNHead`."""
    name, stem = class_name.lower(), file_name.replace("_", "").lower()
    return name == stem or name in {stem + noun for noun in NOUNS}


@contextmanager
def custom_code(allowed: bool) -> Iterator[None]:
    """Allow or forbid the import of custom classes while a configuration is being used.

    A configuration from a weights file is not necessarily the user's own. A context cannot allow
    what an outer context forbids.

    Args:
        allowed: whether `get_class` may import `package.module:Class`.

    Yields:
        Nothing.
    """
    token = _ALLOWS_CUSTOM_CODE.set(allowed and _ALLOWS_CUSTOM_CODE.get())
    try:
        yield
    finally:
        _ALLOWS_CUSTOM_CODE.reset(token)


def get_class(package: str, name: str) -> type[Any]:
    """Import the class of a component.

    Args:
        package: package inside densemtl, such as `decoders`.
        name: name of the component, or `package.module:Class` of a custom class.

    Returns:
        The class, not an instance.

    Raises:
        ConfigError: if the component does not exist (suggests the most similar name), or if it is
            a custom class and `custom_code` forbids its import.

    Example:
        >>> get_class("decoders", "mti_net").__name__
        'MTINet'
    """
    if ":" in name:
        return _import_custom(name)
    modules = _find_modules(package)
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
    if not _ALLOWS_CUSTOM_CODE.get():
        raise ConfigError(
            f"names {shorten(path, 100)}, code that would be imported from this machine; pass"
            " --trust-custom-code (in Python trust_custom_code=True) if you trust it"
        )
    return _import_custom_class(path)


def _import_custom_class(path: str) -> type[Any]:
    module_name, _, class_name = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # the module may raise anything
        reason = shorten(str(error), 300) or type(error).__name__
        raise ConfigError(f"cannot import {path!r}: {reason}") from error
    if not inspect.isclass(cls):
        raise ConfigError(f"{path!r} is not a class")
    return cls


def check_kind(package: str, name: str) -> None:
    """Check that a custom class can be used as a component.

    Args:
        package: package of the component.
        name: name of the component, or `package.module:Class` of a custom class.

    Raises:
        ConfigError: if the class does not implement the base class.
    """
    if ":" not in name:
        return
    cls, base = get_class(package, name), _import_custom_class(BASES[package])
    if not issubclass(cls, base) or inspect.isabstract(cls):
        module, _, base_name = BASES[package].partition(":")
        raise ConfigError(f"{name!r} does not implement {module}.{base_name}")


def get_name(package: str, cls: type[Any]) -> str:
    """Return the name by which `get_class` finds a class.

    Args:
        package: package inside densemtl that the component belongs to.
        cls: class of the component.

    Returns:
        The name of the component, or `package.module:Class` for classes outside the package.

    Example:
        >>> get_name("heads", get_class("heads", "fpn"))
        'fpn'
    """
    home, _, stem = cls.__module__.rpartition(".")
    inside = home == f"densemtl.{package}" or home == f"densemtl.{package}.{stem}"
    return stem if inside else f"{cls.__module__}:{cls.__qualname__}"


def make_options_model(cls: type[Any]) -> type[BaseModel]:
    """Build a strict pydantic model of a component's options, once per class.

    Args:
        cls: class of the component.

    Returns:
        A model with one field per option, with its type, limits and default.

    Raises:
        ConfigError: if an option has no type annotation.
    """
    if cls not in _OPTIONS_MODELS:
        _OPTIONS_MODELS[cls] = _build_options_model(cls)
    return _OPTIONS_MODELS[cls]


def _build_options_model(cls: type[Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for definer in reversed(option_classes(cls)):
        hints = get_type_hints(definer.__init__, include_extras=True)
        for name, parameter in inspect.signature(definer.__init__).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                if name not in hints:
                    path = f"{cls.__module__}:{cls.__qualname__}"
                    raise ConfigError(f"{path!r}: the option {name!r} needs a type annotation")
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[name] = (hints[name], Field(default))
    return create_model(cls.__name__, __config__=OPTIONS_MODEL_CONFIG, **fields)


def option_classes(cls: type[Any]) -> list[type[Any]]:
    """Return the classes whose constructors define a component's options, subclasses first.

    A constructor that accepts `**options` passes them to its base class, so the options of the base
    class are included as well.

    Args:
        cls: class of the component.

    Returns:
        Classes in method resolution order, up to the first one without `**options`.
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
    """Return whether the constructor of a component has a parameter.

    Args:
        cls: class of the component.
        name: name of the parameter.

    Returns:
        True if the constructor, or a base class that it passes options to, has the parameter.
    """
    return any(
        name in inspect.signature(definer.__init__).parameters for definer in option_classes(cls)
    )


def parse_options(cls: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Validate options and convert them to the types that the constructor expects.

    Args:
        cls: class of the component.
        options: {option: value} from a configuration.

    Returns:
        Converted options for `cls(..., **options)`, without those that were not given.

    Raises:
        pydantic.ValidationError: if an option is unknown, of a wrong type or out of its limits.

    Example:
        >>> parse_options(get_class("heads", "deeplabv3"), {"atrous_rates": [6, 12]})
        {'atrous_rates': (6, 12)}
    """
    parsed = make_options_model(cls).model_validate(dict(options))
    return {name: getattr(parsed, name) for name in parsed.model_fields_set}


def create(package: str, name: str, *args: Any, options: Mapping[str, Any]) -> Any:
    """Create a component.

    Args:
        package: package inside densemtl, such as `decoders`.
        name: name of the component, or `package.module:Class` of a custom class.
        *args: positional arguments of the constructor, which the toolkit provides.
        options: options that the user set.

    Returns:
        An instance of the component.

    Raises:
        ConfigError: if the component does not exist or an option is wrong.

    Example:
        >>> create("tasks", "depth", "depth", options={"loss": "berhu"}).name
        'depth'
    """
    cls = get_class(package, name)
    try:
        return cls(*args, **parse_options(cls, options))
    except TypeError as error:
        if ":" not in name:
            raise
        raise ConfigError(f"{name!r} cannot be created: {shorten_error(error)}") from error
    except ValidationError as error:
        raise ConfigError(
            "\n".join(format_validation_errors(error, name, make_options_model(cls)))
        ) from error


def format_validation_errors(
    error: ValidationError, prefix: str, model: type[BaseModel]
) -> list[str]:
    """Format the errors of a pydantic validation.

    Args:
        error: exception that pydantic raised.
        prefix: dotted path of the validated value inside the configuration; may be empty.
        model: pydantic model that the value was validated with.

    Returns:
        One line per error: path, reason and, for unknown keys, a similar valid key.
    """
    lines = []
    for item in error.errors():
        path = ".".join(
            " ".join(str(part).split()) for part in (prefix, *item["loc"]) if part != ""
        )
        if item["type"] == "extra_forbidden":
            valid_keys = list_known_keys(model, item["loc"][:-1])
            section = path.rpartition(".")[0] or model.__name__
            hint = suggest(str(item["loc"][-1]), valid_keys) if valid_keys else ""
            lines.append(f"{path}: unknown key, {hint or f'{section} has no options; remove it'}")
        elif item["type"] == "missing":
            lines.append(f"{path}: must be given")
        elif item["type"] in ("too_short", "too_long", "conflict"):  # the message says it all
            lines.append(f"{path}: {item['msg']}")
        elif item["type"] in ("tuple_type", "list_type") and isinstance(item["input"], Mapping):
            given = reprlib.repr(item["input"])
            lines.append(f"{path}: must be a list, given as a whole: [a, b, ..], not {given}")
        elif item["type"] == "model_type":
            lines.append(f"{path}: give keys and values, not {reprlib.repr(item['input'])}")
        else:
            lines.append(f"{path}: {item['msg']}, not {reprlib.repr(item['input'])}")
    return lines


def list_known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """List the valid keys at a path inside a model.

    Args:
        model: pydantic model.
        path: keys and list indices from the model to the nested section.

    Returns:
        Names of the fields; empty if there is no section at this path.
    """
    annotation: Any = model
    for part in path:
        annotation = _find_item_type(annotation, str(part))
    nested = _find_model(annotation)
    return list(nested.model_fields) if nested else []


def _find_item_type(annotation: Any, key: str) -> Any:
    """Return the type of a field of a model, or of the items of a dictionary or a list."""
    if model := _find_model(annotation):
        field = model.model_fields.get(key)
        return field.annotation if field else None
    for candidate in (annotation, *get_args(annotation)):
        if get_origin(candidate) in (dict, list, tuple):
            return get_args(candidate)[-1 if get_origin(candidate) is dict else 0]
    return None


def _find_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a type is, or that a union contains."""
    is_union = get_origin(annotation) in (Union, UnionType, Annotated)
    for candidate in (annotation, *(get_args(annotation) if is_union else ())):
        if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
            return candidate
    return None


def list_decoders() -> list[str]:
    """List the decoders.

    Returns:
        Sorted names, for `decoder.name`.

    Example:
        >>> {"hard_sharing", "mti_net"} <= set(list_decoders())
        True
    """
    return list_names("decoders")


def list_heads() -> list[str]:
    """List the heads.

    Returns:
        Sorted names, for `head.name`.

    Example:
        >>> list_heads()
        ['deeplabv3', 'fpn', 'hrnetv2', 'linear']
    """
    return list_names("heads")


def list_tasks() -> list[str]:
    """List the tasks, including the generic kinds from which custom tasks are defined.

    Returns:
        Sorted names, for `tasks` and for the `kind` of a custom task.

    Example:
        >>> {"semseg", "depth", "normals", "regression"} <= set(list_tasks())
        True
    """
    return list_names("tasks")


def list_datasets() -> list[str]:
    """List the datasets.

    Returns:
        Sorted names, for `data.name`.

    Example:
        >>> list_datasets()
        ['folder', 'mixed', 'nyud', 'pascal_context', 'shards', 'synthetic']
    """
    return list_names("data.datasets")


def list_balancing() -> list[str]:
    """List the balancing methods, both loss-weighting and gradient methods.

    Returns:
        Sorted names, for `balancing.name`.

    Example:
        >>> {"fixed", "uncertainty", "pcgrad"} <= set(list_balancing())
        True
    """
    return list_names("balancing")


def list_trackers() -> list[str]:
    """List the experiment trackers.

    Returns:
        Sorted names, for `trackers`.

    Example:
        >>> list_trackers()
        ['mlflow', 'tensorboard', 'wandb']
    """
    return list_names("trackers")


def list_metrics() -> list[str]:
    """List the metrics that can be added to a task.

    Returns:
        Sorted names, for the `metrics` of a task.

    Example:
        >>> {"miou", "depth", "boundary"} <= set(list_metrics())
        True
    """
    return list_names("metrics")


def list_protocols() -> list[str]:
    """List the evaluation protocols, each of which defines the metrics of every task.

    Returns:
        Sorted names, for `protocol`.

    Example:
        >>> list_protocols()
        ['modern', 'survey']
    """
    return list_names("metrics.protocols")
