"""Loading of YAML files: inheritance, overrides, sources of values and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from densemtl.config.yaml_loader import (
    COMMAND_LINE,
    apply_overrides,
    load_config,
    parse_override,
)
from densemtl.config.yaml_text import _StrictLoader, parse_yaml, read_yaml
from densemtl.errors import ConfigError

BOMB = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 30)
)
"""Thirty lines whose aliases expand to 10^30 values."""


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return write_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E+3", 2000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-3.", -3.0),
        ("7", 7),
        ("0", 0),
        ("true", True),
        ("null", None),
        ("resnet18", "resnet18"),
        ("'1e-4'", "1e-4"),
        ("v1.5", "v1.5"),
        ("[1, 2e-1]", [1, 0.2]),
        ("", None),
    ],
)
def test_numbers_are_parsed_as_in_yaml_1_2(text, value):
    parsed = parse_override(f"a.b={text}")["a"]["b"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_parse_override_returns_nested_dictionary():
    assert parse_override("optim.lr=2e-5") == {"optim": {"lr": 2e-5}}
    assert parse_override("tasks=[semseg, depth]") == {"tasks": ["semseg", "depth"]}
    assert parse_override("data.root=/a=b") == {"data": {"root": "/a=b"}}


@pytest.mark.parametrize("text", ["optim.lr", "=3", "a..b=3", ".a=1", "a=[1", "a={b: 1, b: 2}"])
def test_malformed_override_is_config_error(text):
    with pytest.raises(ConfigError, match=f"^{COMMAND_LINE}: "):
        parse_override(text)


def test_precedence_of_overrides_file_and_bases(write):
    write("common/root.yaml", "seed: 1\noptim: {lr: 1e-2, momentum: 0.5}\ntasks: [a, b]")
    write("base.yaml", "base: common/root.yaml\noptim: {lr: 1e-3}\ninput: {size: [2, 3]}")
    child = write("child.yaml", "base: base.yaml\ntasks: [c]\noptim: {weight_decay: 0}")
    document = load_config(child, ["optim.momentum=0.9", "train.epochs=3"])
    assert document.values == {
        "seed": 1,
        "optim": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0},
        "tasks": ["c"],
        "input": {"size": [2, 3]},
        "train": {"epochs": 3},
    }


def test_find_source_returns_file_of_value(write):
    base = write("base.yaml", "seed: 1\noptim: {lr: 1, momentum: 0.5}\nhead: {name: x, width: 3}")
    child = write("child.yaml", "base: base.yaml\noptim: {lr: 2}\nhead: {name: y}")
    document = load_config(child, ["train.epochs=3"])
    assert {path: document.find_source(path) for path in document.sources} == {
        "": str(child),
        "seed": str(base),
        "optim": str(base),
        "optim.lr": str(child),
        "optim.momentum": str(base),
        "head": str(child),
        "head.name": str(child),
        "train": COMMAND_LINE,
        "train.epochs": COMMAND_LINE,
    }
    assert document.find_source("optim.lr.0") == str(child)
    assert document.find_source("head.width") == str(child)
    assert document.find_source("never.set") == str(child)


@pytest.mark.parametrize(
    ("error", "source"),
    [
        ("train: set either epochs or steps", COMMAND_LINE),
        ("train: set epochs or amp", f"{{file}} and {COMMAND_LINE}"),
        ("train: amp does not fit", "{file}"),
        ("train: wrong", "{file}"),
        ("train.steps: epochs", COMMAND_LINE),
        ("seed: name", "{file}"),
    ],
)
def test_errors_of_a_section_name_the_source_of_its_keys(write, error, source):
    file = write("a.yaml", "seed: 1\ntrain: {epochs: 1, amp: none}\nhead: {name: x}")
    document = load_config(file, ["train.steps=5", "train.epochs=2", "head.name=y"])
    assert document.find_error_source(error) == source.format(file=file)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "tasks.0.loss=l1",
            r"tasks\.0: .* as a whole: tasks=\[semseg, \{loss: l1, name: depth\}\]",
        ),
        ("tasks.-1=edge", r"tasks\.-1: a list can only be replaced as a whole: tasks=\["),
        ("input.size.1=64", r"input\.size\.1: .* as a whole: input\.size=\[32, 48\]"),
        (
            "data.sets.0.root=/x",
            r"sets\.0: no set '0', choose from bsds, nyud; a new set needs a name",
        ),
        ("data.sets.nyu.root=/x", r"data\.sets\.nyu: no set 'nyu', did you mean 'nyud'\?"),
    ],
)
def test_items_of_lists_cannot_be_changed(write, override, message):
    file = write(
        "a.yaml",
        "tasks: [semseg, {name: depth, loss: l1}]\ninput: {size: [32, 48]}\n"
        "data: {name: mixed, sets: [{name: nyud}, {name: folder, alias: bsds}]}",
    )
    with pytest.raises(ConfigError, match=f"^{COMMAND_LINE}: .*{message}"):
        load_config(file, [override])


def test_sets_and_numbered_values_can_be_added(write):
    file = write("a.yaml", "data: {name: mixed, sets: {a: {name: nyud}}, values: [1]}")
    data = load_config(file, ["data.sets.b.name=folder", "data.values={7: 0}"]).values["data"]
    assert data["sets"] == {"a": {"name": "nyud"}, "b": {"name": "folder"}}
    assert data["values"] == {7: 0}


def test_several_sets_can_be_changed_at_once(write):
    file = write("a.yaml", "data: {name: mixed, sets: [{name: nyud}, {name: folder}]}")
    overrides = [f"data.sets.{name}.root=/{name}" for name in ("nyud", "folder", "more")]
    data = load_config(file, [*overrides, "data.sets.more.name=folder"]).values["data"]
    assert [each["root"] for each in data["sets"].values()] == ["/nyud", "/folder", "/more"]
    with pytest.raises(ConfigError, match="no set 'more', choose from folder, nyud"):
        load_config(file, overrides)


def test_component_with_another_name_drops_inherited_options(write):
    write("base.yaml", "head: {name: deeplabv3, width: 256}\ndata: {name: nyud, root: /x}")
    child = write("child.yaml", "base: base.yaml\nhead: {name: linear}\ndata: {name: nyud}")
    assert load_config(child).values == {
        "head": {"name": "linear"},
        "data": {"name": "nyud", "root": "/x"},
    }
    assert load_config(child, ["head.width=8"]).values["head"] == {"name": "linear", "width": 8}


@pytest.mark.parametrize("order", [1, -1])
def test_order_of_overrides_does_not_matter(write, order):
    file = write("a.yaml", "head: {name: deeplabv3, width: 256, atrous_rates: [1]}")
    overrides = ["head.name=fpn", "head.width=8"][::order]
    assert load_config(file, overrides).values["head"] == {"name": "fpn", "width": 8}


def test_base_is_relative_to_the_file(write, monkeypatch, tmp_path):
    write("deep/root.yaml", "seed: 5")
    write("deep/base.yaml", "base: root.yaml")
    write("top/child.yaml", "base: ../deep/base.yaml")
    monkeypatch.chdir(tmp_path / "deep")
    assert load_config(Path("../top/child.yaml")).values == {"seed": 5}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.yaml": "base: a.yaml"}, "a.yaml: base: the files inherit from each other in a cycle"),
        (
            {"a.yaml": "base: b.yaml", "b.yaml": "base: c.yaml", "c.yaml": "base: b.yaml"},
            "b.yaml: base: the files inherit from each other in a cycle",
        ),
        ({"a.yaml": "base: [b.yaml, c.yaml]"}, "a.yaml: base: must be the name of one file"),
        ({"a.yaml": "base: gone.yaml"}, "gone.yaml: cannot be read: No such file"),
        ({"a.yaml": "base: b.yaml", "b.yaml": "- 1"}, "b.yaml: must contain keys and values, not"),
        ({"a.yaml": "seed: 1\nseed: 2"}, "a.yaml: line 1: duplicate key 'seed'"),
        ({"a.yaml": "x: 1\noptim:\n  lr: 1\n  lr: 2"}, "a.yaml: line 3: duplicate key 'lr'"),
        ({"a.yaml": "optim: {lr: 1"}, "a.yaml: not valid YAML"),
        ({"a.yaml": "optim: !!python/object/apply:os.getcwd []"}, "a.yaml: not valid YAML"),
        ({"a.yaml": "? [1, 2]\n: 3"}, "a.yaml: not valid YAML"),
        ({"a.yaml": "x: &a {y: *a}"}, "a.yaml: line 1: more than 50 levels deep"),
        ({"a.yaml": "x: &a [*a]"}, "a.yaml: line 1: more than 50 levels deep"),
        ({"a.yaml": "x: " + "[" * 60 + "]" * 60}, "a.yaml: line 1: more than 50 levels deep"),
        ({"a.yaml": "x: " + "[" * 9999}, "a.yaml: not valid YAML"),
        ({"a.yaml": BOMB}, "a.yaml: line 5: more than 100000 values"),
        ({"a.yaml": "x: 1\n<<: {x: *y}"}, "a.yaml: not valid YAML"),
        ({"a.yaml": 'base: "b\\0.yaml"'}, "cannot be read: embedded null byte"),
    ],
)
def test_invalid_file_is_one_line_error(write, files, message):
    for name, text in files.items():
        write(name, text)
    first = write("a.yaml", files["a.yaml"])
    with pytest.raises(ConfigError) as caught:
        load_config(first)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_config_error(tmp_path, write):
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match=r"image.yaml: cannot be read: not a UTF-8 text file"):
        read_yaml(tmp_path / "image.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    assert read_yaml(write("empty.yaml", "# nothing yet")) == {}


def test_another_optimizer_or_schedule_keeps_other_keys() -> None:
    saved = {
        "optim": {"name": "adam", "lr": 1e-4},
        "schedule": {"name": "poly", "warmup_epochs": 2},
    }
    changed = apply_overrides(saved, ["optim.name=adamw", "schedule.name=cosine"], "saved")
    assert changed.values == {
        "optim": {"name": "adamw", "lr": 1e-4},
        "schedule": {"name": "cosine", "warmup_epochs": 2},
    }


@pytest.mark.parametrize("text", ["[" + "1, " * 700_000 + "]", "a: " + "x" * 1_000_000])
def test_too_long_text_is_rejected_before_parsing(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml, "load", lambda *args, **options: pytest.fail("parsed"))
    for parse in (lambda: parse_yaml(text, "f"), lambda: parse_override(f"a={text}")):
        with pytest.raises(ConfigError, match="more than 200000 characters"):
            parse()


def test_search_for_duplicate_keys_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons = 0

    class Key(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal comparisons
            comparisons += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    monkeypatch.setattr(
        yaml.SafeLoader, "construct_object", lambda self, node, deep=False: Key(node.value)
    )
    node = yaml.compose("\n".join(f"k{i}: 1" for i in range(200)))
    assert isinstance(node, yaml.MappingNode)
    _StrictLoader("").construct_mapping(node)
    assert comparisons < 2000


def test_unhashable_and_repeated_keys_are_errors() -> None:
    with pytest.raises(ConfigError, match="unhashable"):
        parse_yaml("? [a, b]\n: 1\n? [a, b]\n: 2", "f")
    with pytest.raises(ConfigError, match="duplicate key '1'"):
        parse_yaml("1: 1\n1: 2", "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\noptim: {lr: 1", "line 2, column 14: a bracket is not closed"),
        ("a:\n\tb: 1", "line 2, column 1: a tab; indent by spaces"),
        ("a: b: c", "line 1, column 5: an unexpected colon; put texts that contain one in quotes"),
        ("a: 'x", "line 1, column 6: a quote is not closed"),
        ("a: *y", "line 1, column 4: an alias (*name) without an anchor (&name); put texts in"),
        ("a: !!python/name:os.x 1", "line 1, column 4: tags (!..) are not allowed"),
        ("a:\n  - 1\n b: 2", "line 3, column 2: wrong indentation, or a text that must be in"),
        ("a: @x", "line 1, column 4: a text that must be in quotes"),
        (" - a\nb: 1", "line 2, column 1: wrong indentation"),
    ],
)
def test_malformed_yaml_is_explained_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert str(error.value).startswith(f"{file}: not valid YAML in {message}")
    assert "\n" not in str(error.value)
