"""Import rules: no cycles, fixed levels of packages, and one place for each library."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import densemtl

ROOT = Path(densemtl.__file__).parent

LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "types"),
    ("distributed", "io", "ops", "registry"),
    ("config",),
    ("adapters", "cli", "losses", "metrics", "trackers"),
    ("runtime", "transforms"),
    ("tasks",),
    ("data", "layers", "backbones", "results"),
    ("heads", "decoders"),
    ("models",),
    ("balancing", "evaluation", "visualization"),
    ("factory",),
    ("create", "engine"),
    ("export", "hub"),
    ("inference",),
    ("analysis", "demo", "runs"),
    ("benchmark",),
    ("commands",),
)
"""Packages and modules of densemtl. Each may import only those of earlier levels."""

LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}

LIBRARY_USERS = {
    "timm": {
        *("adapters.task_streams", "backbones", "distributed.sync_batch_norm", "engine"),
        *("export.same_padding_tracing", "export.swin_tracing"),
    },
    "albumentations": {"transforms.albumentations"},
    "torchmetrics": {"metrics"},
    "safetensors": {"engine.weights_file", "io.tensor_files"},
    "huggingface_hub": {"hub"},
    "fastapi": {"demo.web"},
    "uvicorn": {"demo.web"},
    "jinja2": {"benchmark"},
    "mamba_ssm": {"layers.selective_scan"},
    "torchjd": {"balancing._torchjd"},
    "wandb": {"trackers.wandb"},
    "mlflow": {"trackers.mlflow"},
    "torch.utils.tensorboard": {"trackers.tensorboard"},
    "torch.distributed": {"distributed", "engine.sharding"},
}
"""{library: packages or modules that may import it}."""

FILES = sorted(file for file in ROOT.rglob("*.py") if file != ROOT / "__init__.py")


def name_of(file: Path) -> str:
    """Return the module's name inside densemtl: `data/batching.py` -> `data.batching`."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def list_imports(file: Path) -> frozenset[str]:
    """Return the names of all modules that a file imports, including imports in functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            module = node.module or ""
            is_package = (ROOT.parent / module.replace(".", "/")).is_dir()
            members = [alias.name for alias in node.names if is_package]
            names |= {f"{module}.{member}" for member in members} or {module}
    return frozenset(names)


def list_own_imports(file: Path) -> set[str]:
    """Return the imported modules of densemtl, without the prefix."""
    names = {name for name in list_imports(file) if name.startswith("densemtl.")}
    return {name.removeprefix("densemtl.") for name in names} - {"__version__"}


def is_inside(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def top(name: str) -> str:
    """Return the package or loose module that a module belongs to."""
    return name.partition(".")[0]


def test_levels_list_each_package_once():
    entries = {name_of(file).partition(".")[0] for file in FILES}
    assert sorted(LEVEL_OF) == sorted(entries)
    assert len(LEVEL_OF) == sum(map(len, LEVELS))


def test_package_has_at_most_seven_loose_modules():
    assert len(list(ROOT.glob("*.py"))) <= 7


@pytest.mark.parametrize("package", LEVEL_OF)
def test_packages_import_lower_levels_only(package):
    breaches = [
        f"{name_of(file)} imports {name}"
        for file in FILES
        if top(name_of(file)) == package
        for name in sorted(list_own_imports(file))
        if top(name) != package and LEVEL_OF[top(name)] >= LEVEL_OF[package]
    ]
    assert breaches == []


def test_modules_form_no_cycle():
    graph = {name_of(file): list_own_imports(file) for file in FILES}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("types") < order.index("tasks.base") < order.index("data.batching")


@pytest.mark.parametrize("library", LIBRARY_USERS)
def test_libraries_are_imported_only_where_allowed(library):
    users = {
        name_of(file) for file in FILES if any(is_inside(m, {library}) for m in list_imports(file))
    }
    assert users
    assert {user for user in users if not is_inside(user, LIBRARY_USERS[library])} == set()


def test_packages_have_one_line_docstring():
    for file in FILES:
        if file.name == "__init__.py":
            docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
            assert docstring, file
            assert docstring.partition("\n")[0].endswith("."), file


def test_package_does_not_import_tools_or_tests():
    for file in FILES:
        names = list_imports(file)
        assert not any(
            is_inside(name, {"tools", "tests", "pytest", "hypothesis"}) for name in names
        )


@pytest.mark.parametrize("module", ["inference.predictor", "runs.train_run"])
def test_metrics_are_imported_only_when_they_are_computed(module):
    """torchmetrics also imports scipy and matplotlib: more than a second, and 95 MiB."""
    code = f"import sys, densemtl.{module}; print(*sys.modules)"
    call = [sys.executable, "-c", code]
    process = subprocess.run(call, capture_output=True, text=True, check=True)
    imported = set(process.stdout.split())
    assert "torch" in imported
    assert not imported & {"torchmetrics", "scipy", "matplotlib"}
