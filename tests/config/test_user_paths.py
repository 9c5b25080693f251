"""`~` in paths of the configuration, of Python functions and of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

import densemtl
from densemtl import cli, registry
from densemtl.benchmark.suite_config import BenchmarkConfig
from densemtl.commands.__main__ import main
from densemtl.config.constraints import CheckedPath, UserPath
from densemtl.config.experiment import ExperimentConfig
from densemtl.config.shipped_configs import get_default_folder
from densemtl.config.validation import SECTION_PACKAGES
from densemtl.errors import ConfigError, UserError
from densemtl.io.paths import parse_path
from tests.helpers.experiments import make_tiny_experiment, write_tiny_config

UNKNOWN = "~no-such-user/x"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Use a temporary home, and another working directory, in which `~` must not be created."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    assert not list((tmp_path / "work").glob("~*"))


def test_home_folders_are_expanded_only_at_the_start(home: Path) -> None:
    assert parse_path("~") == home
    assert parse_path(Path("~/x")) == home / "x"
    assert parse_path("~root").is_absolute()
    assert parse_path("a/~") == Path("a/~")


@pytest.mark.parametrize("path", [UNKNOWN, "~no-such-user", "~a\0b/x"])
def test_unknown_user_is_one_line(path: str) -> None:
    with pytest.raises(ConfigError, match="there is no user ") as error:
        parse_path(path)
    assert "\n" not in str(error.value)


def list_plain_paths(model: type[BaseModel]) -> list[str]:
    """List the fields with a `Path` that is not expanded."""
    return [
        f"{model.__name__}.{name}"
        for name, field in model.model_fields.items()
        if not (field.annotation is Path and field.metadata)
        and contains_plain_path(field.annotation)
    ]


def contains_plain_path(annotation: Any) -> bool:
    if annotation in (UserPath, CheckedPath):
        return False
    return annotation is Path or any(map(contains_plain_path, get_args(annotation)))


class PlainPaths(BaseModel):
    a: Path
    b: Path | None
    c: dict[str, Path]
    d: UserPath
    e: UserPath | None
    f: dict[str, UserPath]


def test_plain_paths_are_found() -> None:
    assert list_plain_paths(PlainPaths) == ["PlainPaths.a", "PlainPaths.b", "PlainPaths.c"]


def test_all_paths_of_the_configuration_are_expanded() -> None:
    models = [ExperimentConfig, BenchmarkConfig]
    for field in ExperimentConfig.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            models.append(field.annotation)
    for package in (*SECTION_PACKAGES.values(), "trackers", "metrics", "tasks", "losses"):
        for name in registry.list_names(package):
            models.append(registry.make_options_model(registry.get_class(package, name)))
    assert [name for model in models for name in list_plain_paths(model)] == []


@pytest.mark.parametrize(
    ("dataset", "values", "path"),
    [
        ("nyud", {"root": "~/x"}, "root"),
        ("nyud", {"root": "/", "derived_normals": "~/x"}, "derived_normals"),
        ("pascal_context", {"root": "/", "derived_labels": "~/x"}, "derived_labels"),
        ("shards", {"root": "~/x"}, "root"),
        ("shards", {"root": "/", "cache_dir": "~/x"}, "cache_dir"),
        ("folder", {"root": "/", "images": "~/x", "labels": {}}, "images"),
    ],
)
def test_options_of_datasets_are_expanded(
    home: Path, dataset: str, values: dict[str, Any], path: str
) -> None:
    cls = registry.get_class("data.datasets", dataset)
    assert str(registry.parse_options(cls, values)[path]) == str(home / "x")
    with pytest.raises(ValidationError, match="there is no user 'no-such-user'"):
        registry.parse_options(cls, {**values, path: UNKNOWN})


def test_urls_are_not_changed() -> None:
    cls = registry.get_class("data.datasets", "shards")
    url = "https://host//a/~me"
    assert registry.parse_options(cls, {"root": url}) == {"root": url}


@pytest.mark.parametrize(
    "override",
    [
        "loader.cache_dir={path}",
        "baselines={{depth: {path}}}",
        "init_from={{depth: {path}}}",
        "data={{name: nyud, root: {path}}}",
    ],
)
def test_unknown_user_in_a_configuration_names_the_key(override: str) -> None:
    with pytest.raises(ConfigError, match=override[:4]) as error:
        make_tiny_experiment(override.format(path=UNKNOWN))
    message = str(error.value)
    assert "there is no user 'no-such-user' on this machine" in message
    assert "\n" not in message


def test_run_folders_of_the_configuration_are_expanded(home: Path) -> None:
    experiment = make_tiny_experiment("baselines={depth: ~/d, semseg: ~/s}")
    assert experiment.baselines == {"depth": home / "d", "semseg": home / "s"}


def test_default_cache_folder_stays_valid_for_other_users() -> None:
    assert "cache_dir: ~/.cache/densemtl" in make_tiny_experiment().to_yaml()


@pytest.mark.parametrize(
    "call",
    [
        lambda path: densemtl.train(path, {}),
        lambda path: densemtl.train("synthetic/quick", {}, output=path),
        densemtl.evaluate,
        densemtl.Predictor.from_run,
        densemtl.from_pretrained,
        lambda path: densemtl.save_pretrained(path, "out"),
    ],
    ids=["train", "output", "evaluate", "from_run", "from_pretrained", "save_pretrained"],
)
def test_unknown_user_in_python_is_one_line(call: Callable[[str], object]) -> None:
    with pytest.raises(UserError, match="there is no user 'no-such-user'"):
        call(UNKNOWN)


def test_python_functions_and_bases_expand_paths(home: Path) -> None:
    write_tiny_config(home)
    (home / "mine.yaml").write_text("base: ~/tiny.yaml\ndata: {train_images: 2}\n")
    results = densemtl.train(
        "~/mine.yaml", {"train.epochs": 1, "loader.batch_size": 1}, output="~/run", device="cpu"
    )
    assert (home / "run" / "results.json").is_file()
    evaluated = densemtl.evaluate("~/run", device="cpu")
    assert evaluated.weights_hash == results.weights_hash
    assert densemtl.Predictor.from_run("~/run", device="cpu").tasks
    densemtl.save_pretrained("~/run", "~/published")
    assert densemtl.from_pretrained("~/published", device="cpu").file.parent == home / "published"
    assert get_default_folder(Path("~/mine.yaml")) == Path("runs/mine")


def test_every_path_of_the_command_line_is_expanded(home: Path) -> None:
    parser = cli.ArgumentParser()
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path)
    args = parser.parse_intermixed_args(["~/a", "b", "--output=~/x"])
    assert (args.inputs, args.output) == ([home / "a", Path("b")], home / "x")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", UNKNOWN],
        ["train", "synthetic/quick", f"--output={UNKNOWN}"],
        ["evaluate", UNKNOWN],
        ["evaluate", "predictions", UNKNOWN, "synthetic/quick"],
        ["evaluate", "edges", f"--predictions={UNKNOWN}", "--ground-truth=x", "--json=x"],
        ["demo", UNKNOWN, "x.jpg"],
        ["table", UNKNOWN],
        ["benchmark", UNKNOWN],
        ["check_data", "synthetic/quick", f"--output={UNKNOWN}"],
        ["hub", "x", f"--save={UNKNOWN}"],
        ["prepare_nyud", "normals", UNKNOWN, "--output=x"],
        ["make_synthetic", "nyud", UNKNOWN],
        ["compatibility", f"--output={UNKNOWN}"],
    ],
    ids=" ".join,
)
def test_unknown_user_on_the_command_line_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").touch()
    arguments = [str(run) if text == "x" and arguments[0] == "hub" else text for text in arguments]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith(f"error: {UNKNOWN}: there is no user 'no-such-user'")
    assert error.count("\n") == 1
