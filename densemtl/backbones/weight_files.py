"""Weights of a backbone from a file: names and shapes are compared with those of the timm model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.errors import ModelError, join_names
from densemtl.io.tensor_files import describe_mismatch, read_tensors

WeightsMatch = Literal["name", "order"]
"""How the tensors of a file are assigned to those of the model."""

Tensors = Mapping[str, Tensor]
"""{name: tensor}."""

COUNTER = "num_batches_tracked"
"""Last part of the names of counters of batch normalization, which do not affect the features."""


def load_weights_file(
    features: nn.Module, file: Path, model: nn.Module, match: WeightsMatch = "name"
) -> str:
    """Load a weights file into a feature network.

    Prefixes such as `module.` or `backbone.` are removed, and timm's conversion of checkpoints of
    other projects is applied. For images of other channels than RGB, timm's adaptation of the first
    convolution is applied.

    Args:
        features: feature network of timm, changed in place.
        file: .safetensors, or a file of torch that contains a state dict.
        model: the whole timm model with the same options, as a classifier; it may be on the meta
            device.
        match: "name" assigns tensors by their names; "order" assigns them in the order of the file,
            which must be that of timm, for files with other names.

    Returns:
        One line about the number of loaded tensors and the names of those that are not used.

    Raises:
        ModelError: if the file cannot be read, or if tensors that the features need are missing or
            have another shape.
    """
    expected = {
        name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COUNTER)
    }
    targets = {
        normalize_name(name): tensor
        for name, tensor in features.state_dict().items()
        if not name.endswith(COUNTER)
    }
    required = [name for name in expected if normalize_name(name) in targets]
    if len(required) < len(targets):  # some weights would silently stay random
        raise ModelError(f"{file}: weights files of this family of timm models are not supported")
    given = read_tensors(file)
    if match == "order":
        tensors = _assign_in_order(file, given, expected, required)
    else:
        tensors = _convert(_remove_prefix(given, expected), model)
    found = {
        name: _adapt_channels(tensors[name], expected[name]) for name in required if name in tensors
    }
    if reason := describe_mismatch({name: expected[name] for name in required}, found):
        hint = "for other names in timm's order, set backbone.weights_match=order"
        raise ModelError(f"{file}: does not fit the backbone: {reason}; {hint}")
    with torch.no_grad():
        for name in required:
            targets[normalize_name(name)].copy_(found[name])
    unused = [name for name in tensors if name not in required and not name.endswith(COUNTER)]
    ignored = f"; not used: {join_names(unused)}" if unused else ""
    return f"{file}: {len(required)} tensors loaded into the backbone{ignored}"


def _adapt_channels(tensor: Tensor, expected: Tensor) -> Tensor:
    """Adapt the first convolution of a network for RGB to other channels, as timm does."""
    from timm.models import adapt_input_conv

    is_first = tensor.ndim == 4 == expected.ndim and tensor.shape[1] == 3 != expected.shape[1]
    if not is_first or tensor.shape[::2] != expected.shape[::2]:
        return tensor
    adapted: Tensor = adapt_input_conv(expected.shape[1], tensor)
    return adapted


def normalize_name(name: str) -> str:
    """Return the same text for the names of a tensor in a timm model and in its feature network.

    Feature networks are the model itself, contain it as `model`, or flatten its stages, as in
    `stages_0.blocks` for `stages.0.blocks`.

    Args:
        name: name of a tensor in one of both.

    Returns:
        The common name.
    """
    return name.removeprefix("model.").replace("_", ".")


def _remove_prefix(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Remove the prefix whose removal gives the largest number of known names."""
    parts = {name: name.split(".") for name in given}
    counts = Counter(
        name.removesuffix(suffix)
        for name in given
        for depth in range(len(parts[name]))
        if (suffix := ".".join(parts[name][depth:])) in expected
    )
    best = max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")
    return {
        name.removeprefix(best): tensor for name, tensor in given.items() if name.startswith(best)
    }


def _convert(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Apply timm's conversion for the family of the model, if it has one."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        converted: dict[str, Tensor] = convert(dict(tensors), model)
    except Exception:  # tensors of another model; the check of names and shapes reports them
        return tensors
    return converted


def _assign_in_order(
    file: Path, given: Tensors, expected: Tensors, required: Sequence[str]
) -> dict[str, Tensor]:
    values = [tensor for name, tensor in given.items() if not name.endswith(COUNTER)]
    names = list(expected)
    if len(values) != len(names):  # the classifier may be missing, or be another one
        names = list(required)
    if len(values) < len(names):
        raise ModelError(
            f"{file}: {len(values)} tensors, the backbone has {len(names)}; the file is of another"
            " model"
        )
    for name, value in zip(names, values, strict=False):
        shape = _adapt_channels(value, expected[name]).shape
        if name in required and shape != expected[name].shape:
            raise ModelError(
                f"{file}: in the order of the file, {name} has the shape {tuple(value.shape)}, not"
                f" {tuple(expected[name].shape)}; the file is of another model or in another order"
            )
    surplus = [name for name in given if not name.endswith(COUNTER)][len(names) :]
    return dict(zip([*names, *surplus], values, strict=True))
