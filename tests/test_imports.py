"""Imports point one way: what a package may know is written here, and nothing else."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import densemtl

ROOT = Path(densemtl.__file__).parent

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "distributed": ("errors",),
    "types": (),
    "atomic": ("errors",),
    "colours": (),
    "limits": (),
    "settings": ("limits",),
    "components": ("errors",),
    "configfile": ("errors",),
    "checks": ("components", "errors", "models.backbone", "types"),
    "config": ("checks", "components", "configfile", "errors", "limits", "settings", "types"),
    "directions": (),
    "coarse": ("models.layers", "types"),
    "argmax": ("coarse",),
    "void": (),
    "words": (),
    "handover": (),
    "thinning": ("words",),
    "parallel": ("errors",),
    "partition": ("thinning",),
    "metrics": ("directions", "errors", "partition", "thinning", "types", "void", "words"),
    "losses": ("coarse", "directions", "distributed", "errors", "tasks.base", "types"),
    "tasks": (
        *(
            "argmax",
            "coarse",
            "colours",
            "data.geometry",
            "errors",
            "limits",
            "losses",
            "metrics",
            "types",
            "void",
        ),
    ),
    "data": (
        *("atomic", "components", "distributed", "errors", "limits", "partition", "settings"),
        *("tasks.base", "thinning", "types"),
    ),
    "models": ("decoders.base", "distributed", "errors", "limits", "types"),
    "heads": ("errors", "limits", "models.layers", "types"),
    "decoders": ("distributed", "errors", "handover", "limits", "models", "tasks.base", "types"),
    "balancing": ("distributed", "errors", "handover", "limits", "losses", "tasks", "types"),
    "introspection.costs": ("models.model", "types"),
    "introspection.wall": (),
    "introspection.sketch": (
        *("introspection.costs", "introspection.wall", "models.model", "types"),
    ),
    "visualize": ("colours", "tasks.base", "types"),
    "media": ("errors",),
    "predictions.files": ("data", "errors", "predictions.values", "tasks", "types"),
    "demo": (
        *("atomic", "data", "engine.panels", "errors", "inference", "media", "predictions.files"),
        *("tasks", "types", "visualize"),
    ),
    "web": ("errors", "inference.predictor", "tasks", "visualize"),
    "inference": (
        *("coarse", "components", "data.files", "data.geometry", "engine.evaluate"),
        *(
            "engine.panels",
            "engine.precision",
            "errors",
            "hub.fetch",
            "limits",
            "load",
            "models.fold",
            "models.model",
            "settings",
        ),
        *("tasks.base", "types", "visualize"),
    ),
    "trackers": ("atomic", "errors"),
    "engine": (
        *("atomic", "balancing.base", "coarse", "components", "data", "distributed", "errors"),
        *("losses.objective", "metrics.base", "metrics.labelled", "models", "parallel"),
        *("settings", "tasks.base", "trackers", "types", "visualize"),
    ),
}
"""{file or package: what of densemtl it may import}. Files left out stand above all of these."""

HOMES = {
    "timm": {"models", "engine"},
    "albumentations": {"data.pixels"},
    "torchmetrics": {"metrics"},
    "safetensors": {"engine.checkpoint"},
    "huggingface_hub": {"hub"},
    "gradio": {"web"},
    "torchjd": {"balancing.torchjd"},
    "wandb": {"trackers.wandb"},
    "mlflow": {"trackers.mlflow"},
    "torch.utils.tensorboard": {"trackers.tensorboard"},
    "torch.distributed": {"distributed", "engine.fsdp"},
}
"""{library: the only places that know it}."""

FILES = sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    """`densemtl/data/loader.py` -> `data.loader`."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imported(file: Path) -> frozenset[str]:
    """All modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            module = node.module or ""
            beside = (ROOT.parent / module.replace(".", "/")).is_dir()
            members = [alias.name for alias in node.names if beside]
            found |= {f"{module}.{member}" for member in members} or {module}
    return frozenset(found)


def own_imports(file: Path) -> set[str]:
    names = (name for name in imported(file) if name.startswith("densemtl."))
    return {name.removeprefix("densemtl.") for name in names}


def lies_in(name: str, places: tuple[str, ...] | set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_the_table_is_of_what_exists():
    for place in {*MAY_IMPORT, *(part for parts in MAY_IMPORT.values() for part in parts)}:
        path = ROOT / place.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), place


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_nothing_knows_more_than_it_may(place):
    allowed = (*MAY_IMPORT[place], place)
    breaches = [
        f"{name_of(file)} imports {name}"
        for file in FILES
        if lies_in(name_of(file), (place,))
        for name in own_imports(file)
        if not lies_in(name, allowed)
    ]
    assert breaches == []


def test_files_form_no_circle():
    graph = {name_of(file): own_imports(file) for file in FILES}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("types") < order.index("tasks.base") < order.index("data.loader")


@pytest.mark.parametrize("library", HOMES)
def test_libraries_have_one_home(library):
    users = {
        name_of(file) for file in FILES if any(lies_in(name, (library,)) for name in imported(file))
    }
    assert users
    assert {user for user in users if not lies_in(user, HOMES[library])} == set()


def test_the_package_imports_neither_tools_nor_tests():
    for file in FILES:
        assert not imported(file) & {"tools", "tests", "fakes", "pytest", "hypothesis"}, file
