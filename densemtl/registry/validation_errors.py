"""Messages of validation errors of pydantic, one line each."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from densemtl.errors import suggest


def format_validation_errors(
    error: ValidationError, prefix: str, model: type[BaseModel], other_keys: Sequence[str] = ()
) -> list[str]:
    """Format the errors of a pydantic validation.

    Args:
        error: exception that pydantic raised.
        prefix: dotted path of the validated value inside the configuration; may be empty.
        model: pydantic model that the value was validated with.
        other_keys: further valid keys next to the fields of the model.

    Returns:
        One line per error: path, reason and, for unknown keys, a similar valid key.
    """
    lines = []
    for item in error.errors():
        path = ".".join(
            " ".join(str(part).split()) for part in (prefix, *item["loc"]) if part != ""
        )
        if item["type"] == "extra_forbidden":
            own_keys = list_known_keys(model, item["loc"][:-1])
            valid_keys = own_keys if item["loc"][:-1] else [*own_keys, *other_keys]
            section = path.rpartition(".")[0] or model.__name__
            hint = _suggest_key(str(item["loc"][-1]), valid_keys, section)
            lines.append(f"{path}: unknown key, {hint}")
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


def _suggest_key(key: str, valid_keys: Sequence[str], section: str) -> str:
    """Return how to correct an unknown key of a section."""
    name, colon, value = key.partition(":")
    if colon and name in (*valid_keys, "name"):
        return f"write {name}: {value} with a space after the colon"
    has_options = any(valid_key != "name" for valid_key in valid_keys)
    otherwise = "" if has_options else f"{section} has no options; remove it"
    return suggest(key, valid_keys, otherwise) if valid_keys else otherwise


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
