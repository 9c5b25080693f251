"""Weights files of any origin: reading without running code, and differences to a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densemtl.errors import ModelError
from densemtl.io.paths import describe_missing

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""Supported file types; all but the first are read by torch with `weights_only=True`."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "teacher", "student", "net")
"""Keys under which training code stores the state dict of a network, in order of preference."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file.

    Dictionaries that contain the state dict under a usual key, such as "state_dict" or "teacher",
    are opened.

    Args:
        file: file with one of the suffixes `SUFFIXES`.

    Returns:
        {name: tensor}, in the order of the file.

    Raises:
        ModelError: if the file is missing, of another type, corrupt, or contains no tensors.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{file}: not a weights file; file types: {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise ModelError(describe_missing(file, "no such file"))
    try:
        content = _read(file)
    except Exception as error:  # unpickling may raise anything
        is_code = type(error).__name__ == "UnpicklingError"
        reason = "other objects than tensors" if is_code else "incomplete, or of another type"
        raise ModelError(
            f"{file}: cannot be read as tensors ({reason}); save its state dict as .safetensors"
        ) from error
    tensors = _find_state_dict(content)
    if not tensors:
        raise ModelError(f"{file}: contains no tensors")
    return tensors


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Describe the differences between the names and shapes of tensors, for error messages.

    Args:
        expected: {name: tensor} of the model.
        found: {name: tensor} of the file.

    Returns:
        Numbers and examples of missing, unknown and differently shaped tensors; empty if equal.

    Example:
        >>> describe_mismatch({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.zeros(3)})
        "tensors: 1 missing ('b'); 1 of another shape ('a' is (3,), not (2,))"
    """
    missing = [repr(name) for name in expected if name not in found]
    unknown = [repr(name) for name in found if name not in expected]
    reshaped = [
        f"{name!r} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    groups = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    parts = [f"{len(each)} {kind} ({each[0]})" for kind, each in groups.items() if each]
    return f"tensors: {'; '.join(parts)}" if parts else ""


def _read(file: Path) -> Any:
    if file.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _find_state_dict(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for key in WRAPPERS:
        if isinstance(content.get(key), Mapping) and (tensors := _find_state_dict(content[key])):
            return tensors
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
