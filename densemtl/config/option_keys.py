"""Keys of the configuration by the last part of their name, without importing components."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from densemtl import registry
from densemtl.config.validation import SECTION_PACKAGES

PACKAGES = {**SECTION_PACKAGES, "backbone": "backbones"}
"""{section: package of the classes whose options are its keys}."""


def find_keys(option: str) -> list[str]:
    """Find the keys of the configuration that a user may mean by an option of the command line.

    Args:
        option: name of the option without dashes at its start, such as `batch-size`.

    Returns:
        Keys whose whole name or last part equals the option, or the key of the name of a section.
        Options of components are included only if no other key matches.

    Example:
        >>> find_keys("epochs"), find_keys("batch-size"), find_keys("optim.lr")
        (['train.epochs'], ['loader.batch_size'], ['optim.lr'])
        >>> find_keys("root"), find_keys("decoder")
        (['data.root'], ['decoder.name'])
    """
    name = option.replace("-", "_")
    for keys in (_list_section_keys(), _list_component_keys()):
        found = dict.fromkeys(key for key in keys if _matches(name, key))
        if found:
            return list(found)
    return []


def _matches(name: str, key: str) -> bool:
    return name in (key, key.rpartition(".")[2]) or key == f"{name}.name"


def _list_section_keys() -> Iterator[str]:
    from densemtl.config.experiment import ExperimentConfig

    for name, field in ExperimentConfig.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if not is_section:
            yield name
            continue
        for key in registry.list_known_keys(ExperimentConfig, (name,)):
            yield f"{name}.{key}"


def _list_component_keys() -> Iterator[str]:
    folder = Path(__file__).parents[1]
    for section, package in PACKAGES.items():
        for file in sorted(folder.joinpath(*package.split(".")).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    for argument in node.args.kwonlyargs:
                        yield f"{section}.{argument.arg}"
