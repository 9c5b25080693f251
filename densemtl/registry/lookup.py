"""Lookup of components by name.

A component is a class in `densemtl/<package>/<name>.py` that is named after the file: `mti_net.py`
contains `MTINet`. A component of several files is in `<name>/<name>.py`. `package.module:Class`
names a custom class. Only the module of the requested component is imported.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

from densemtl.errors import ConfigError, suggest

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
    folder = Path(__file__).parents[1].joinpath(*package.split("."))
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
