"""The option `loss` of tasks: a name, `{name: .., option: ..}`, or a list of them with weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from inspect import isabstract
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from densemtl import registry
from densemtl.config.constraints import PositiveFloat
from densemtl.config.sections import CONFLICT
from densemtl.errors import ConfigError, suggest
from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.weighted_sum import TaskLoss, Term

LossSpec = str | dict[str, Any] | list[str | dict[str, Any]]
"""Name of a loss, `{name: .., weight: .., option: ..}`, or a list of them."""

PACKAGE = "losses"

FORMS = "must be a name, {name: .., option: ..} or a list of them"


class _Entry(BaseModel):
    """Keys of an entry that are not options of the loss."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    name: str
    weight: PositiveFloat = 1.0


def _annotate(kind: LabelKind) -> Any:
    return BeforeValidator(lambda value: _validate(value, kind))


ClassLosses = Annotated[LossSpec, _annotate("classes")]
BinaryLosses = Annotated[LossSpec, _annotate("binary")]
ValueLosses = Annotated[LossSpec, _annotate("values")]
DirectionLosses = Annotated[LossSpec, _annotate("directions")]


def create_task_loss(
    spec: LossSpec,
    labels: LabelInfo,
    path: str,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> TaskLoss:
    """Create the loss of a task.

    Args:
        spec: the option `loss`.
        labels: the labels of the task.
        path: path of the option, for messages.
        defaults: {loss: {option: value}} of options that `spec` does not set.

    Returns:
        The weighted sum of the losses.

    Raises:
        ConfigError: if a loss does not exist or does not fit the labels, or an option is wrong.
    """
    errors = [
        ".".join((path, *location)) + f": {text}"
        for location, text in _find_errors(spec, labels.kind)
    ]
    if errors:
        raise ConfigError("\n".join(errors))
    try:
        return TaskLoss(
            [_create(entry, labels, defaults or {}) for _, entry in _iter_entries(spec)]
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def list_losses(kind: LabelKind) -> list[str]:
    """List the losses for a kind of labels.

    Args:
        kind: what the label maps contain.

    Returns:
        Sorted names.

    Example:
        >>> list_losses("directions")
        ['angular', 'cosine', 'l1']
    """
    return [name for name, kinds in _list_kinds().items() if kind in kinds]


@cache
def _list_kinds() -> dict[str, tuple[LabelKind, ...]]:
    names = registry.list_names(PACKAGE)
    return {name: registry.get_class(PACKAGE, name).kinds for name in names}


def _create(
    entry: Mapping[str, Any], labels: LabelInfo, defaults: Mapping[str, Mapping[str, Any]]
) -> Term:
    known = _Entry.model_validate(entry)
    options = {**defaults.get(known.name, {}), **_get_options(entry)}
    loss: Loss = registry.create(PACKAGE, known.name, labels, options=options)
    return known.weight, loss


def _validate(value: Any, kind: LabelKind) -> Any:
    """Raise pydantic's error for a wrong option; return it, with a list instead of a tuple."""
    errors = [
        InitErrorDetails(
            type=PydanticCustomError(CONFLICT, "{text}", {"text": text}), loc=location, input=value
        )
        for location, text in _find_errors(value, kind)
    ]
    if errors:
        raise ValidationError.from_exception_data("loss", errors)
    return list(value) if isinstance(value, tuple) else value


def _find_errors(value: Any, kind: LabelKind) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path inside the option, message) of each error."""
    if isinstance(value, list | tuple) and not value:
        yield (), "list at least one loss"
    for location, entry in _iter_entries(value):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            yield location, f"{FORMS}, not {entry!r:.100}"
            continue
        for line in _find_entry_errors(entry, kind):
            key, _, text = line.partition(": ")
            yield (*location, *([key] if key else [])), text


def _iter_entries(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path inside the option, entry) of each loss; a plain name becomes an entry."""
    entries = value if isinstance(value, list | tuple) else [value]
    for index, entry in enumerate(entries):
        location = (str(index),) if entries is value else ()
        yield location, {"name": entry} if isinstance(entry, str) else entry


def _find_entry_errors(entry: Mapping[str, Any], kind: LabelKind) -> Iterator[str]:
    """Yield lines `key: message`, where the key is empty for the name of the loss."""
    try:
        options_model = registry.make_options_model(_get_class(entry["name"], kind))
    except ConfigError as error:
        yield f": {error}"
        return
    for model, values in ((_Entry, entry), (options_model, _get_options(entry))):
        try:
            model.model_validate(values)
        except ValidationError as error:
            for line in registry.format_validation_errors(error, entry["name"], model):
                yield line.removeprefix(entry["name"]).removeprefix(".")


def _get_class(name: str, kind: LabelKind) -> type[Loss]:
    """Return the class of a loss.

    Raises:
        ConfigError: if it does not exist or does not fit the labels.
    """
    fitting = list_losses(kind)
    if ":" not in name and name not in fitting:
        known = name in _list_kinds()
        problem = f"{name!r} is no loss for {kind}" if known else f"no {name!r} in losses"
        raise ConfigError(f"{problem}: {suggest(name, fitting)}")
    cls: type[Any] = registry.get_class(PACKAGE, name)
    if not issubclass(cls, Loss) or isabstract(cls):
        raise ConfigError(f"{name!r} does not implement densemtl.losses.base.Loss")
    if kind not in getattr(cls, "kinds", ()):
        raise ConfigError(f"{name!r} is no loss for {kind}: {suggest(name, fitting)}")
    return cls


def _get_options(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in entry.items() if key not in ("name", "weight")}
