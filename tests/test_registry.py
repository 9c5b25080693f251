"""From names to classes: exactly the files, one import each, options checked by the constructor."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType

import pytest
from pydantic import ValidationError

from densemtl import registry
from densemtl.balancing.base import Balancer
from densemtl.data.base import DenseDataset
from densemtl.decoders.base import Decoder
from densemtl.errors import ConfigError, suggest
from densemtl.metrics.base import TaskMetric
from densemtl.metrics.protocols.base import ScoringProtocol
from densemtl.tasks.base import Task

BASES = {
    "tasks": Task,
    "data.datasets": DenseDataset,
    "decoders": Decoder,
    "balancing": Balancer,
    "metrics.protocols": ScoringProtocol,
}


class Plug:
    """Takes two things from the framework and four from the user."""

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
def test_names_are_the_files_that_hold_a_component(package):
    """Every concrete subclass that a package defines, public and in a file of its own name."""
    root = importlib.import_module(f"densemtl.{package}")
    found = set()
    for info in pkgutil.iter_modules(root.__path__):
        module = importlib.import_module(f"densemtl.{package}.{info.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            own = cls.__module__ == module.__name__ and issubclass(cls, BASES[package])
            if own and name.lower().removesuffix("dataset") == info.name.replace("_", ""):
                found.add(info.name)
    assert set(registry.list_names(package)) == found
    assert found
    assert all(issubclass(registry.get_class(package, name), BASES[package]) for name in found)


def test_the_six_tasks_and_four_kinds_are_there():
    assert set(registry.list_names("tasks")) >= {
        *("semseg", "human_parts", "depth", "normals", "edge", "saliency"),
        *("classification", "binary", "regression", "direction"),
    }


@pytest.mark.parametrize(
    "package",
    ["tasks", "data.datasets", "heads", "decoders", "balancing", "metrics", "metrics.protocols"],
)
def test_every_component_takes_options_only_by_keyword_and_annotated(package):
    for name in registry.list_names(package):
        fields = registry.make_options_model(registry.get_class(package, name)).model_fields
        assert all(field.annotation is not inspect.Parameter.empty for field in fields.values())


def test_metrics_are_files_or_folders():
    names = registry.list_names("metrics")
    assert set(names) == {
        *("binary", "boundary", "depth", "miou", "normals", "regression", "calibration_error"),
        "saliency",
    }
    assert all(issubclass(registry.get_class("metrics", name), TaskMetric) for name in names)


@pytest.mark.parametrize("package", [*BASES, "heads", "metrics"])
def test_classes_know_their_names(package):
    for name in registry.list_names(package):
        assert registry.get_name(package, registry.get_class(package, name)) == name
    assert registry.get_name(package, Plug) == f"{__name__}:Plug"


def test_naming_components_imports_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "densemtl.tasks.edge", raising=False)
    assert "edge" in registry.list_names("tasks")
    assert "densemtl.tasks.edge" not in sys.modules


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no 'semsegg' in tasks: did you mean 'semseg'\?"):
        registry.get_class("tasks", "semsegg")
    with pytest.raises(ConfigError, match=r"no 'xyz' in balancing: choose from .*fixed"):
        registry.get_class("balancing", "xyz")


@pytest.mark.parametrize("name", ["base", "__init__", "geometry", "loader"])
def test_files_without_a_component_are_no_names(name):
    with pytest.raises(ConfigError):
        registry.get_class("data.datasets", name)


def test_own_classes_by_path(plug):
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
def test_own_classes_that_are_not_there(plug, path, message):
    with pytest.raises(ConfigError, match=message):
        registry.get_class("decoders", path)


def test_suggestions():
    assert suggest("learning_rte", ["learning_rate", "x"]) == ("did you mean 'learning_rate'?")
    assert suggest("zzz", {"b", "a"}) == "choose from a, b"
    assert suggest("zzz", []) == "there are none"
    assert suggest("zzz", {"b", "a"}, "ask") == "ask"
    assert suggest("bb", {"bbb", "a"}, "ask") == "did you mean 'bbb'?"


def test_only_the_given_options_are_passed_on_in_their_types(plug):
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
def test_wrong_options_are_told_all_at_once(plug, options, lines):
    with pytest.raises(ConfigError) as caught:
        registry.create("heads", plug, "features", options=options)
    told = str(caught.value).splitlines()
    assert len(told) == len(lines)
    assert all(line in text for line, text in zip(lines, told, strict=True))


class Plus(Plug):
    """Has an option of its own, and passes the others on."""

    def __init__(self, given: str, *, height: int = 1, **options: object) -> None:
        super().__init__(given, **options)
        self.height = height


class Fewer(Plus):
    """Passes nothing on, so that it takes its own option alone."""

    def __init__(self, given: str, *, depth: float = 2.0) -> None:
        super().__init__(given, width=1)
        self.depth = depth


def test_options_that_are_passed_on_are_options_too(plug):
    assert registry.option_classes(Plus) == [Plus, Plug]
    fields = registry.make_options_model(Plus).model_fields
    assert list(fields) == ["width", "rates", "mode", "deep", "height"]
    assert fields["width"].is_required()
    assert registry.parse_options(Plus, {"width": 2, "height": 3}) == {"width": 2, "height": 3}
    assert registry.has_option(Plus, "deep")
    assert not registry.has_option(Plus, "depth")
    with pytest.raises(ValidationError):
        registry.parse_options(Plus, {"width": 2, "hight": 3})


def test_what_is_not_passed_on_is_no_option():
    assert registry.option_classes(Fewer) == [Fewer]
    assert list(registry.make_options_model(Fewer).model_fields) == ["depth"]
    assert not registry.has_option(Fewer, "width")


def test_inherited_constructors_are_read(plug):
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
