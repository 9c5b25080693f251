"""Removal of the modules of a network that are not used."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn


def keep_modules(net: nn.Module, names: Collection[str]) -> None:
    """Remove all modules and parameters of a network except some modules.

    Removed modules are replaced by identities, so that the names of the others do not change.

    Args:
        net: the network, changed in place.
        names: names of the modules that are kept with everything inside them.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
        >>> keep_modules(net, ["1.0"])
        >>> [name for name, _ in net.named_parameters()]
        ['1.0.weight', '1.0.bias']
    """
    ancestors = {name[:end] for name in names for end, sign in enumerate(name) if sign == "."}
    _prune(net, "", frozenset(names), ancestors | {""})


def _prune(module: nn.Module, path: str, kept: Collection[str], ancestors: Collection[str]) -> None:
    for name in dict(module.named_parameters(recurse=False)):
        setattr(module, name, None)
    for name, child in dict(module.named_children()).items():
        child_path = f"{path}.{name}" if path else name
        if child_path in kept:
            continue
        if child_path in ancestors:
            _prune(child, child_path, kept, ancestors)
        else:
            module.register_module(name, nn.Identity())
