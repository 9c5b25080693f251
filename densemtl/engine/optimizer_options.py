"""Checks of the options of an optimizer against the constructor of its class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import timm.optim
import torch
from torch import nn

from densemtl.errors import ConfigError, shorten_error, suggest

OWN_KEYS = ("lr", "weight_decay", "momentum")
"""Options of optimizers that the section `optim` has keys for."""

INTERNAL_OPTIONS = (
    "self",
    "params",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
    "maximize",
)
"""Parameters of constructors that are no settings of training."""


def get_optimizer_class(name: str) -> Callable[..., Any]:
    """Return the class of an optimizer of timm.

    Args:
        name: name of the optimizer.

    Returns:
        The class.

    Raises:
        ConfigError: if the optimizer needs a GPU or a package that this machine does not have.
    """
    try:
        return timm.optim.get_optimizer_class(name, bind_defaults=False)
    except (AssertionError, ImportError) as error:
        raise ConfigError(f"optim.name: {name} is not available here: {error}") from error


def check_optimizer_options(name: str, options: Mapping[str, Any]) -> None:
    """Check names and types of the options of an optimizer.

    Args:
        name: name of an optimizer of timm.
        options: {option: value}.

    Raises:
        ConfigError: if the optimizer has no such option, its default is of another type, or a step
            with these options fails.
    """
    if not options:
        return
    parameters = _list_options(name)
    for option, value in options.items():
        path = f"optim.options.{option}"
        if option in OWN_KEYS:
            raise ConfigError(f"{path}: set optim.{option} instead")
        if option not in parameters:
            hint = suggest(option, parameters) if parameters else "it has no options"
            raise ConfigError(f"{path}: {name} has no such option, {hint}")
        _check_value(path, value, parameters[option])
    _check_step(name, options)


def _list_options(name: str) -> dict[str, Any]:
    """Return {option: default} of an optimizer."""
    info = timm.optim.get_optimizer_info(name)
    kind = get_optimizer_class(name)
    hidden = {
        *INTERNAL_OPTIONS,
        *OWN_KEYS,
        *(() if info.has_betas else ("betas",)),  # timm ignores these
        *(() if info.has_eps else ("eps",)),
    }
    return {
        key: parameter.default
        for key, parameter in inspect.signature(kind).parameters.items()
        if key not in hidden and parameter.default is not inspect.Parameter.empty
    }


def _check_value(path: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        fits, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, tuple):
        fits = isinstance(value, tuple) and len(value) == len(default)
        expected = f"{len(default)} numbers, such as {list(default)}"
    elif isinstance(default, int | float):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        expected = f"a number, such as {default}"
    else:
        fits, expected = True, ""
    if fits and value is not None and ".betas" in path and not _are_betas(value):
        fits, expected = False, "numbers from 0 to below 1"
    if not fits:
        raise ConfigError(f"{path}: must be {expected}")


def _are_betas(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(beta, int | float) and 0 <= beta < 1 for beta in value
    )


def _check_step(name: str, options: Mapping[str, Any]) -> None:
    """Take a step on two small tensors: many optimizers use some options only there, unchecked."""
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    values: dict[str, Any] = dict(options)
    try:
        optimizer = timm.optim.create_optimizer_v2(parameters, opt=name, lr=1e-3, **values)
        if not name.startswith("kron"):  # compiles its step, which takes half a minute
            optimizer.step()
    except Exception as error:  # of any type
        reason = shorten_error(error)
        raise ConfigError(f"optim.options: {name} fails with {values}: {reason}") from error
