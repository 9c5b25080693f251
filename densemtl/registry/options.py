"""Options of components, and their validation.

The options of a component are the keyword-only parameters of its constructor; they are validated
against the type annotations.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from densemtl.errors import ConfigError, shorten_error
from densemtl.registry.lookup import get_class
from densemtl.registry.validation_errors import format_validation_errors

OPTIONS_MODEL_CONFIG = ConfigDict(
    extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=()
)

_OPTIONS_MODELS: dict[type[Any], type[BaseModel]] = {}
"""{component: model of its options}."""


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
