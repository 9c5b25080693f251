"""Lookup of components by name, and validation of options by constructor annotations."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType

import pytest
from pydantic import BaseModel, ValidationError

from densemtl import registry
from densemtl.balancing.base import Balancer
from densemtl.data.base import DenseDataset
from densemtl.decoders.base import Decoder
from densemtl.errors import ConfigError, suggest
from densemtl.losses.base import Loss
from densemtl.metrics.base import TaskMetric
from densemtl.metrics.protocols.base import ScoringProtocol
from densemtl.tasks.base import Task

BASES = {
    "tasks": Task,
    "data.datasets": DenseDataset,
    "decoders": Decoder,
    "balancing": Balancer,
    "metrics.protocols": ScoringProtocol,
    "losses": Loss,
}


class Plug:
    """Component with two positional arguments and four options."""

    def __init__(
        self,
        given: str,
        more: int = 0,
        *,
        width: int,
        rates: tuple[float, ...] = (1.0,),
        mode: str | None = None,
        deep: bool = False,
    ) -> None:
        self.given, self.more = given, more
        self.width, self.rates, self.mode, self.deep = width, rates, mode, deep


@pytest.fixture
def plug(monkeypatch) -> str:
    module = ModuleType("toybox")
    module.Plug, module.number = Plug, 3
    monkeypatch.setitem(sys.modules, "toybox", module)
    return "toybox:Plug"


@pytest.mark.parametrize("package", BASES)
def test_list_names_returns_files_that_define_a_component(package):
    """Compare with all public subclasses that are defined in a file of the same name."""
    root = importlib.import_module(f"densemtl.{package}")
    names = set()
    for info in pkgutil.iter_modules(root.__path__):
        module = importlib.import_module(f"densemtl.{package}.{info.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            own = cls.__module__ == module.__name__ and issubclass(cls, BASES[package])
            if own and name.lower().removesuffix("dataset") == info.name.replace("_", ""):
                names.add(info.name)
    assert set(registry.list_names(package)) == names
    assert names
    assert all(issubclass(registry.get_class(package, name), BASES[package]) for name in names)


def test_list_names_returns_six_tasks_and_four_kinds():
    assert set(registry.list_names("tasks")) >= {
        *("semseg", "human_parts", "depth", "normals", "edge", "saliency"),
        *("classification", "binary", "regression", "direction"),
    }


@pytest.mark.parametrize("package", [*BASES, "heads", "metrics"])
def test_all_options_of_components_are_annotated(package):
    for name in registry.list_names(package):
        fields = registry.make_options_model(registry.get_class(package, name)).model_fields
        assert all(field.annotation is not inspect.Parameter.empty for field in fields.values())


def test_list_names_returns_metrics_in_files_and_folders():
    names = registry.list_names("metrics")
    assert set(names) == {
        *("binary", "boundary", "depth", "miou", "normals", "regression", "calibration_error"),
        *("saliency", "max_f_published", "false_positives_outside", "validity"),
    }
    assert all(issubclass(registry.get_class("metrics", name), TaskMetric) for name in names)


@pytest.mark.parametrize("package", [*BASES, "heads", "metrics"])
def test_get_name_inverts_get_class(package):
    for name in registry.list_names(package):
        assert registry.get_name(package, registry.get_class(package, name)) == name
    assert registry.get_name(package, Plug) == f"{__name__}:Plug"


def test_list_names_imports_no_component(monkeypatch):
    monkeypatch.delitem(sys.modules, "densemtl.tasks.edge", raising=False)
    assert "edge" in registry.list_names("tasks")
    assert "densemtl.tasks.edge" not in sys.modules


def test_unknown_name_error_suggests_similar_name():
    with pytest.raises(ConfigError, match=r"no 'semsegg' in tasks: did you mean 'semseg'\?"):
        registry.get_class("tasks", "semsegg")
    with pytest.raises(ConfigError, match=r"no 'xyz' in balancing: choose from .*fixed"):
        registry.get_class("balancing", "xyz")


@pytest.mark.parametrize("name", ["base", "__init__", "geometry", "loader"])
def test_files_without_component_are_not_found(name):
    with pytest.raises(ConfigError):
        registry.get_class("data.datasets", name)


def test_get_class_imports_custom_class(plug):
    assert registry.get_class("decoders", plug) is Plug


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module_xyz:Plug", "cannot import 'no_such_module_xyz:Plug': No module named"),
        ("toybox:Gone", "cannot import 'toybox:Gone'"),
        ("toybox:number", "'toybox:number' is not a class"),
        ("toybox:", "cannot import"),
        (":Plug", "cannot import"),
        (".relative:Plug", "cannot import"),
    ],
)
def test_missing_custom_class_is_config_error(plug, path, message):
    with pytest.raises(ConfigError, match=message):
        registry.get_class("decoders", path)


def test_suggest():
    assert suggest("learning_rte", ["learning_rate", "x"]) == ("did you mean 'learning_rate'?")
    assert suggest("zzz", {"b", "a"}) == "choose from a, b"
    assert suggest("zzz", []) == "there are no choices"
    assert suggest("zzz", {"b", "a"}, "ask") == "ask"
    assert suggest("bb", {"bbb", "a"}, "ask") == "did you mean 'bbb'?"


def test_parse_options_returns_given_options_in_annotated_types(plug):
    assert registry.parse_options(Plug, {"width": 3}) == {"width": 3}
    options = registry.parse_options(Plug, {"width": 3, "rates": [1, 2.5], "mode": None})
    assert options == {"width": 3, "rates": (1.0, 2.5), "mode": None}
    built = registry.create("heads", plug, "features", 2, options={"width": 3, "deep": True})
    assert (built.given, built.more, built.width, built.rates, built.deep) == (
        "features",
        2,
        3,
        (1.0,),
        True,
    )


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"width": 3, "wdth": 4}, [r"toybox:Plug.wdth: unknown key, did you mean 'width'?"]),
        ({"width": 3, "given": "x"}, [r"toybox:Plug.given: unknown key, choose from"]),
        ({}, ["toybox:Plug.width: must be given"]),
        ({"width": "wide", "deep": 7}, ["toybox:Plug.width: ", "toybox:Plug.deep: "]),
        ({"width": 1, "rates": [1, "x"]}, ["toybox:Plug.rates.1: Input should be a valid number"]),
    ],
)
def test_all_wrong_options_are_reported(plug, options, lines):
    with pytest.raises(ConfigError) as caught:
        registry.create("heads", plug, "features", options=options)
    errors = str(caught.value).splitlines()
    assert len(errors) == len(lines)
    assert all(line in error for line, error in zip(lines, errors, strict=True))


class Plus(Plug):
    """Component with one more option that passes other options to its base class."""

    def __init__(self, given: str, *, height: int = 1, **options: object) -> None:
        super().__init__(given, **options)
        self.height = height


class Fewer(Plus):
    """Component with one option that accepts no options of its base class."""

    def __init__(self, given: str, *, depth: float = 2.0) -> None:
        super().__init__(given, width=1)
        self.depth = depth


def test_options_of_base_class_are_included(plug):
    assert registry.option_classes(Plus) == [Plus, Plug]
    fields = registry.make_options_model(Plus).model_fields
    assert list(fields) == ["width", "rates", "mode", "deep", "height"]
    assert fields["width"].is_required()
    assert registry.parse_options(Plus, {"width": 2, "height": 3}) == {"width": 2, "height": 3}
    assert registry.has_option(Plus, "deep")
    assert not registry.has_option(Plus, "depth")
    with pytest.raises(ValidationError):
        registry.parse_options(Plus, {"width": 2, "hight": 3})


def test_options_of_base_class_are_excluded_without_var_keyword():
    assert registry.option_classes(Fewer) == [Fewer]
    assert list(registry.make_options_model(Fewer).model_fields) == ["depth"]
    assert not registry.has_option(Fewer, "width")


def test_options_of_inherited_constructor_are_found(plug):
    class Child(Plug):
        pass

    assert set(registry.make_options_model(Child).model_fields) == {
        "width",
        "rates",
        "mode",
        "deep",
    }
    with pytest.raises(ValidationError):
        registry.parse_options(Child, {"depth": 1, "width": 1})


class Inner(BaseModel):
    alpha: int = 0


class Outer(BaseModel):
    one: Inner | None = None
    named: dict[str, Inner] = {}
    listed: tuple[Inner, ...] = ()
    deep: dict[str, list[Inner]] | None = None
    number: int = 0


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ((), ["one", "named", "listed", "deep", "number"]),
        (("one",), ["alpha"]),
        (("named", "depth"), ["alpha"]),
        (("listed", 3), ["alpha"]),
        (("deep", "a", 0), ["alpha"]),
        (("number",), []),
        (("named",), []),
        (("gone", "x"), []),
    ],
)
def test_known_keys_are_listed_inside_lists_and_dictionaries(path, keys):
    assert registry.list_known_keys(Outer, path) == keys
