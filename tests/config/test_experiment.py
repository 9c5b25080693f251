"""Experiment configuration: loading, overrides, error messages and configuration hashes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from densemtl.config.experiment import load_experiment
from densemtl.errors import ConfigError


class Rooms:
    """Dataset with three tasks, one of which has a custom name and a kind."""

    def __init__(self, split: str, tasks: list[str], *, root: str = "/data", size: int = 8) -> None:
        self.split, self.tasks, self.root, self.size = split, tasks, root, size

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {
            "semseg": {"class_names": ["wall", "floor"]},
            "depth": {},
            "height": {"kind": "regression", "vis_max": 2.0},
        }


class Joint:
    """Decoder with one option."""

    def __init__(self, make_backbone: Any, make_head: Any, tasks: Any, *, width: int = 8) -> None:
        self.width = width


class Thin:
    """Head with one required option."""

    def __init__(self, features: Any, channels: int, *, depth: int) -> None:
        self.depth = depth


GOOD = """
tasks: [semseg, {name: depth, loss: berhu}]
data: {name: "toybox:Rooms", size: 4}
backbone: {name: resnet18, pretrained: false}
decoder: {name: "toybox:Joint", width: 16}
head: {name: "toybox:Thin", depth: 2}
optim: {name: adam, lr: 1e-4}
"""


@pytest.fixture(autouse=True)
def toybox(monkeypatch):
    module = ModuleType("toybox")
    module.Rooms, module.Joint, module.Thin = Rooms, Joint, Thin
    monkeypatch.setitem(sys.modules, "toybox", module)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "run.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_file


def errors(file: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, overrides)
    return str(caught.value).splitlines()


def test_valid_file_is_loaded(write):
    experiment = load_experiment(write(GOOD))
    assert experiment.list_task_names() == ["semseg", "depth"]
    assert experiment.tasks[1].options == {"loss": "berhu"}
    assert experiment.data.options == {"size": 4}
    assert experiment.optim.lr == 1e-4
    assert experiment.schedule.name == "poly"
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 3


def test_overrides_change_values(write):
    experiment = load_experiment(
        write(GOOD), ["optim.lr=2e-5", "tasks=[height]", "input.size=[4, 6]", "decoder.width=3"]
    )
    assert (experiment.optim.lr, experiment.optim.name) == (2e-5, "adam")
    assert experiment.list_task_names() == ["height"]
    assert experiment.input.size == (4, 6)
    assert experiment.decoder.options == {"width": 3}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optm.lr=1", "optm: unknown key, did you mean 'optim'?"),
        ("optim.rate=1", "optim.rate: unknown key, choose from"),
        ("augment.color_jitter.hu=1", "augment.color_jitter.hu: unknown key, did you mean 'hue'?"),
        ("optim.lr=fast", "optim.lr: Input should be a valid number"),
        ("optim.lr=-1", "optim.lr: Input should be greater than 0, not -1"),
        ("optim.lr=.inf", "optim.lr: Input should be a finite number"),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1, not 0"),
        (
            "train.amp=int8",
            "train.amp: Input should be 'auto', 'none', 'bf16' or 'fp16', not",
        ),
        ("input.size=[4]", "input.size.1: must be given"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("protocol=moderm", "protocol: no 'moderm' in protocols: did you mean 'modern'?"),
        ("tasks=semseg", "tasks: Input should be a valid tuple, not 'semseg'"),
        ("trackers.0=wandb", "trackers: must be a list, given as a whole: [a, b, ..], not {'0': "),
        ("tasks=[]", "tasks: list at least one task"),
        ("tasks=[depth, depth]", "tasks.1: 'depth' is listed twice"),
        ("tasks=[depth, {loss: l1}]", "tasks.1.name: must be given"),
        ("tasks=[dept]", "tasks.0: the dataset has no task 'dept', did you mean 'depth'?"),
        ("tasks=[normals]", "tasks.0: the dataset has no task 'normals', choose from depth, hei"),
        ("tasks=[{name: depth, los: l1}]", "tasks.0.los: unknown key, did you mean 'loss'?"),
        ("tasks=[{name: depth, loss: l3}]", "tasks.0.loss: no 'l3' in losses: choose from berhu, "),
        ("tasks=[{name: depth, kind: regresion}]", "tasks.0.name: no 'regresion' in tasks: did"),
        ("tasks=[{name: depth, kind: 3}]", "tasks.0.kind: Input should be a valid string"),
        ("tasks=[{name: height, los: l1}]", "tasks.0.los: unknown key, did you mean 'loss'?"),
        ("balancing.name=fixd", "balancing.name: no 'fixd' in balancing: did you mean 'fixed'?"),
        (
            "balancing={name: fixed, weights: {depht: 2}}",
            "balancing.weights.depht: no task 'depht', did you mean 'depth'?",
        ),
        (
            "balancing={name: fixed, weights: {depth: x}}",
            "balancing.weights.depth: Input should be",
        ),
        ("decoder.name=toybox:Gone", "decoder.name: cannot import 'toybox:Gone'"),
        ("decoder.name=hard_sharin", "decoder.name: no 'hard_sharin' in decoders: did you mean"),
        ("decoder={name: pap_net, affinity_pixels: 1}", "decoder.affinity_pixels: Input should be"),
        ("head={name:fpn}", "head.name:fpn: unknown key, write name: fpn with a space after the"),
        ("optim={lr:1e-3}", "optim.lr:1e-3: unknown key, write lr: 1e-3 with a space after the"),
        ("decoder.widht=4", "decoder.widht: unknown key, did you mean 'width'?"),
        ("decoder=wide", "decoder: give keys and values"),
        ("head.depth=null", "head.depth: Input should be a valid integer, not None"),
        (
            "head={name: linear, depth: 2}",
            "head.depth: unknown key, head has no options; remove it",
        ),
        (
            "head={name: linear, nam: fpn}",
            "head.nam: unknown key, did you mean 'name'?",
        ),
        ("data.sise=4", "data.sise: unknown key, did you mean 'size'?"),
        ("backbone.pretraind=true", "backbone.pretraind: unknown key, did you mean 'pretrained'?"),
        ("backbone.name=3", "backbone.name: Input should be a valid string"),
        ("data=null", "data: give keys and values"),
    ],
)
def test_error_is_one_line_with_source_key_and_fix(write, override, line):
    messages = errors(write(GOOD), override)
    assert len(messages) == 1
    assert messages[0].startswith(f"command line: {line}")


def test_baselines_of_wrong_type_are_one_error(write):
    for wrong in ("later", "false", "{depth: 3}", "[1]"):
        (message,) = errors(write(GOOD), f"baselines={wrong}")
        assert message.startswith(
            "command line: baselines: must be auto, none or {task: run folder}, not "
        )
    (message,) = errors(write(GOOD), "init_from=3")
    assert message == (
        "command line: init_from: must be a run folder, baselines, none or {task: run folder},"
        " not 3"
    )
    folders = load_experiment(write(GOOD), ["baselines={depth: runs/a}"]).baselines
    assert folders == {"depth": Path("runs/a")}


@pytest.mark.parametrize("key", ["async_checkpoints", "channels_last"])
def test_switch_of_wrong_value_is_one_error(write, key):
    (message,) = errors(write(GOOD), f"train.{key}=maybe")
    assert message == f"command line: train.{key}: must be true, false or auto, not 'maybe'"
    assert getattr(load_experiment(write(GOOD), [f"train.{key}=false"]).train, key) is False


def test_all_errors_are_reported_with_their_files(write):
    base = write(GOOD.replace("width: 16", "wid: 16").replace("1e-4", "0"), "base.yaml")
    child = write("base: base.yaml\ntasks: [semseg, edge]\nsede: 3\ndata: {root: 7}\n")
    assert set(errors(child, "train.epochs=many")) == {
        f"{base}: decoder.wid: unknown key, did you mean 'width'?",
        f"{base}: optim.lr: Input should be greater than 0, not 0",
        f"{child}: sede: unknown key, did you mean 'seed'?",
        f"{child}: data.root: Input should be a valid string, not 7",
        "command line: train.epochs: Input should be a valid integer, unable to parse string as an "
        "integer, not 'many'",
    }


def test_missing_sections_are_reported_for_the_loaded_file(write):
    write("seed: 1", "base.yaml")
    child = write("base: base.yaml\ntasks: [depth]\n")
    assert sorted(errors(child, "train.epochs=3")) == [
        f"{child}: {section}: must be given" for section in ("backbone", "data", "decoder", "head")
    ]


def test_replaced_component_inherits_no_options(write):
    write(GOOD, "base.yaml")
    child = write('base: base.yaml\nhead: {name: linear}\ndecoder: {name: "toybox:Joint"}\n')
    experiment = load_experiment(child)
    assert experiment.head.options == {}
    assert experiment.decoder.options == {"width": 16}


def test_integer_key_is_one_error(write):
    messages = errors(write(GOOD + "3: 4\n"))
    assert len(messages) == 1
    assert "3" in messages[0]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["tasks=[height, semseg]", "baselines={height: a/b}", "augment.color_jitter={hue: 0.1}"],
        ["balancing={name: fixed, weights: {depth: 2}}", "augment.scales=[1, 1.2, 1.5]"],
        ["tasks=[{name: semseg, colors: [[1, 2, 3], [4, 5, 6]]}, {name: depth, loss: l1}]"],
        [
            "optim.lr_scale={shared: 0.1, depth: 10}",
            "train.max_grad_norm=10",
            "schedule.interval=epoch",
        ],
    ],
)
def test_resolved_yaml_loads_equal_experiment(write, overrides):
    experiment = load_experiment(write(GOOD), overrides)
    again = load_experiment(write(experiment.to_yaml(), "resolved.yaml"))
    assert again == experiment
    assert again.to_yaml() == experiment.to_yaml()


def test_config_hash_ignores_keys_without_effect_on_results(write):
    hashes = {
        load_experiment(write(GOOD), overrides).compute_config_hash()
        for overrides in (
            [],
            ["data.root=/elsewhere"],
            ["loader.num_workers=0"],
            ["train.num_vis_images=2"],
        )
    }
    assert len(hashes) == 1
    for override in ("seed=1", "optim.lr=1e-3", "data.size=5", "tasks=[depth]", "head.depth=3"):
        assert load_experiment(write(GOOD), [override]).compute_config_hash() not in hashes


def test_to_single_task_keeps_all_other_settings(write):
    experiment = load_experiment(
        write(GOOD), ["optim.lr_scale={shared: 0.1, depth: 10, semseg: 2}", "seed=4"]
    )
    alone = experiment.to_single_task("depth")
    assert alone.list_task_names() == ["depth"]
    assert (alone.decoder.name, alone.balancing.name) == ("single_task", "fixed")
    assert alone.tasks[0].options == {"loss": "berhu"}
    assert alone.optim.lr_scale == {"shared": 0.1, "depth": 10}
    assert (alone.seed, alone.optim.lr, alone.head) == (4, 1e-4, experiment.head)
    again = load_experiment(write(alone.to_yaml(), "alone.yaml"))
    assert again == alone


@pytest.mark.parametrize("name", ["shared", "fusion", "balancing", "a.b", "keys", "training", "2d"])
def test_reserved_task_name_is_an_error(write, monkeypatch, name):
    monkeypatch.setattr(
        Rooms, "task_defaults", classmethod(lambda cls, **options: {name: {"kind": "depth"}})
    )
    file = write(GOOD.replace("[semseg, {name: depth, loss: berhu}]", f"['{name}']"))
    assert errors(file) == [
        f"{file}: tasks.0: {name!r} is not a valid task name: use another word of a-z, 0-9, _"
    ]


HEX_DIGITS = "f" * 4000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"seed=0x{HEX_DIGITS}", "seed: line 1: integer of more than 300 digits"),
        (f"input.size=[3, 0x{HEX_DIGITS}]", "input.size: line 1: integer of more than 300"),
        (f"optim={{? 0x{HEX_DIGITS} : 1}}", "optim: line 1: integer of more than 300 digits"),
        ("seed=0b1" + "0" * 20_000, "seed: line 1: integer of more than 300 digits"),
        ("seed=1" + ":1" * 4000, "seed: line 1: integer of more than 300 digits"),
        ("data.name=builtins:dict", "data.name: 'builtins:dict' is no dataset"),
        (
            "data.name=densemtl.data.skip_corrupt:SkipCorruptDataset",
            "SkipCorruptDataset' is no dataset",
        ),
        ("head.name=threading:Thread", "head.name: 'threading:Thread': the option"),
    ],
)
def test_long_integers_and_classes_of_another_kind_are_errors(write, override, message):
    lines = errors(write(GOOD), override)
    assert any(message in line for line in lines), lines
    assert max(map(len, lines)) < 500
