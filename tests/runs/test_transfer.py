"""Initialization from runs with other decoders, tasks and classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from densemtl.engine.weights_file import load_weights
from densemtl.errors import CheckpointError, ConfigError
from densemtl.factory import build_model, build_tasks
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.train_run import train_experiment
from densemtl.runs.transfer import transfer_weights
from tests.helpers.experiments import make_tiny_experiment


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of hard sharing for semseg and depth."""
    folder = tmp_path_factory.mktemp("source") / "run"
    train_experiment(make_tiny_experiment("train.epochs=1"), folder, "cpu", max_steps=1)
    return folder


def build(*overrides: str) -> MultiTaskModel:
    torch.manual_seed(5)
    experiment = make_tiny_experiment(*overrides)
    return build_model(experiment, build_tasks(experiment))


def load_source(source: Path) -> dict[str, Tensor]:
    return load_weights(source / "best.safetensors").tensors


def assert_equal_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_same_network_is_loaded_completely(source):
    model = build()
    report = transfer_weights(model, source, strict=True)
    assert (report.mismatched, report.missing, report.unused) == ([], [], [])
    assert_equal_tensors(model.state_dict(), load_source(source))
    assert str(report).endswith(f"{len(report.loaded)} tensors loaded")


def test_other_tasks_and_classes_keep_new_heads(source):
    classes = "tasks=[{name: semseg, class_names: [a, b, c]}, normals]"
    model, fresh = build(classes), build(classes).state_dict()
    report = transfer_weights(model, source)
    state, tensors = model.state_dict(), load_source(source)
    assert {name.split(".")[2] for name in report.missing} == {"normals"}
    assert {name.split(".")[2] for name in report.unused} == {"depth"}
    assert report.mismatched
    assert all(name.startswith("decoder.heads.semseg.") for name in report.mismatched)
    for name, value in state.items():
        is_old = name in tensors and tensors[name].shape == value.shape
        assert torch.equal(value, tensors[name] if is_old else fresh[name]), name
    assert "new because of another shape: decoder.heads.semseg." in str(report)


@pytest.mark.parametrize(
    "decoder",
    [
        "cross_stitch",
        "customized_sharing",
        "mtan",
        "{name: asymmetric_sharing, sources: {depth: [semseg]}}",
    ],
)
def test_shared_backbone_is_loaded_into_every_backbone(decoder, source):
    name = decoder if decoder.startswith("{") else f"{{name: {decoder}}}"
    model = build(f"decoder={name}")
    transfer_weights(model, source)
    tensors = load_source(source)
    backbones = [key for key in model.state_dict() if key.endswith("net.conv1.0.weight")]
    assert backbones
    for key in backbones:
        assert torch.equal(model.state_dict()[key], tensors["decoder.backbone.net.conv1.0.weight"])


def test_single_task_run_is_loaded_into_shared_network(tmp_path):
    single = make_tiny_experiment("train.epochs=1").to_single_task("depth")
    train_experiment(single, tmp_path / "depth", "cpu", max_steps=1)
    report = transfer_weights(build(), tmp_path / "depth")
    assert not report.unused
    assert {name.split(".")[2] for name in report.missing} == {"semseg"}


def test_strict_and_unrelated_weights_are_one_line_errors(source):
    with pytest.raises(CheckpointError, match="must be equal because of init_strict") as error:
        transfer_weights(build("tasks=[semseg]"), source, strict=True)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="another network: remove init_from"):
        transfer_weights(torch.nn.Linear(2, 2), source)
    with pytest.raises(CheckpointError, match="nowhere"):
        transfer_weights(build(), Path("nowhere"))


def test_run_starts_from_another_run_and_resumes_without_it(source, tmp_path, capsys):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((source / "best.safetensors").read_bytes())
    overrides = (f"init_from={copy}", "tasks=[depth, normals]", "train.epochs=1")
    whole = train_experiment(make_tiny_experiment(*overrides), tmp_path / "whole", "cpu")
    assert f"init_from: {copy}: " in capsys.readouterr().out
    scratch = train_experiment(make_tiny_experiment(*overrides[1:]), tmp_path / "scratch", "cpu")
    assert scratch.weights_hash != whole.weights_hash
    experiment = make_tiny_experiment(*overrides)
    train_experiment(experiment, tmp_path / "parts", "cpu", max_steps=2)
    copy.unlink()
    assert train_experiment(experiment, tmp_path / "parts", "cpu").complete
    states = [
        load_weights(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "parts")
    ]
    assert_equal_tensors(states[0].tensors, states[1].tensors)


def test_missing_run_is_reported_before_training(tmp_path):
    experiment = make_tiny_experiment(f"init_from={tmp_path / 'nothing'}")
    with pytest.raises(CheckpointError, match="nothing"):
        train_experiment(experiment, tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def test_wrong_value_lists_the_choices():
    with pytest.raises(ConfigError, match="init_from: must be a run folder, baselines, none or"):
        make_tiny_experiment("init_from=3")
