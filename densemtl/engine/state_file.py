"""Parsing of `state.pt`, which may come from another source."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer


def parse_state(data: bytes) -> dict[str, Any]:
    """Read a saved state of training without running code.

    Args:
        data: content of the file.

    Returns:
        The state.

    Raises:
        ValueError: if it is no dictionary, or needs more memory than the file has bytes. An archive
            that torch writes is not compressed.
        Exception: if the file is corrupt; torch raises many types.
    """
    with ZipFile(BytesIO(data)) as archive:
        members = archive.infolist()
    is_compressed = any(member.compress_type != ZIP_STORED for member in members)
    if is_compressed or sum(member.file_size for member in members) > len(data):
        raise ValueError("a compressed archive, which densemtl does not write")
    state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("holds no fields")
    _check_tensors(state)
    return state


def _check_tensors(value: Any) -> None:
    """Reject tensors that repeat the same memory, such as a huge tensor of a single number."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError("a tensor needs more memory than it has in the file")
    elif isinstance(value, Mapping):
        for part in value.values():
            _check_tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_tensors(part)


FULL_SHAPE_NAMES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")
"""Entries of optimizer states that have the shape of their parameter in every optimizer."""


def check_optimizer_state(saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Check types and shapes, which `Optimizer.load_state_dict` does not.

    Args:
        saved: full state dict of an optimizer.
        optimizer: the optimizer that the state will be loaded into.

    Raises:
        ValueError: if an option has another type, or a tensor is missing or does not fit its
            parameter.
        Exception: if the layout is another one; of many types.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in saved["state"].items():
        for name, value in values.items():
            fits = not isinstance(value, Tensor) or value.shape == parameters[index].shape
            if (name in FULL_SHAPE_NAMES and not fits) or isinstance(value, str | bytes):
                raise ValueError(f"{name} of parameter {index} does not fit")
        if missing := _find_missing_entry(values, optimizer):
            raise ValueError(f"{missing} of parameter {index} is missing")
    for group, current in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        for name in (group.keys() & current.keys()) - {"params"}:
            kinds = _find_kind(group[name]), _find_kind(current[name])
            if None not in kinds and kinds[0] != kinds[1]:
                raise ValueError(f"option {name} has another type")


def _find_missing_entry(values: Mapping[str, Any], optimizer: Optimizer) -> str:
    """Return the name of an entry of a parameter that Adam needs but does not create; else ""."""
    if not isinstance(optimizer, Adam):
        return ""
    amsgrad = any(group["amsgrad"] for group in optimizer.param_groups)
    required = ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if amsgrad else ()))
    return next((name for name in required if name not in values), "")


def _find_kind(value: Any) -> Any:
    """Return a description of the type that is equal for all numbers; None for None."""
    if isinstance(value, list | tuple):
        return [_find_kind(part) for part in value]
    return "number" if isinstance(value, bool | int | float) else value and type(value).__name__
