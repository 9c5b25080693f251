"""Tests of the initial model of a run: its weights, random state and FLOP count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densemtl.errors import ModelError
from densemtl.factory import build_model, build_splits, build_tasks
from densemtl.models.complexity import count_flops, meta_copy
from densemtl.runs import initial_model
from densemtl.runs.initial_model import build_initial_model
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.experiments import make_tiny_experiment


def test_weights_and_random_state_depend_only_on_the_seed() -> None:
    experiment = make_tiny_experiment("seed=3")
    torch.manual_seed(3)
    expected = build_model(experiment, build_tasks(experiment)).state_dict()
    numbers = torch.rand(4)
    torch.manual_seed(99)
    initial = build_initial_model(experiment, build_tasks(experiment))
    actual = initial.model.state_dict()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    torch.set_rng_state(initial.rng_state["cpu"])
    assert torch.equal(torch.rand(4), numbers)


def test_training_starts_with_the_random_state_of_the_initial_model(tmp_path: Path) -> None:
    experiment = make_tiny_experiment()
    initial = build_initial_model(experiment, build_tasks(experiment))
    torch.manual_seed(99)  # simulates the training of other models in between
    execution = make_execution_config(experiment.train, "cpu")
    run = build_training_run(
        experiment, build_splits(experiment), tmp_path, execution, None, initial
    )
    assert run.train_step.model is initial.model
    assert torch.equal(torch.get_rng_state(), initial.rng_state["cpu"])


@pytest.mark.parametrize("baselines", ["none", "auto"])
def test_each_run_builds_its_model_once(tmp_path: Path, monkeypatch, baselines: str) -> None:
    built: list[tuple[str, ...]] = []

    def build(experiment, tasks):
        built.append(tuple(task.name for task in tasks))
        return build_model(experiment, tasks)

    monkeypatch.setattr(initial_model, "build_model", build)
    train_experiment(
        make_tiny_experiment("train.epochs=1", f"baselines={baselines}"), tmp_path / "multi", "cpu"
    )
    singles = [("semseg",), ("depth",)] if baselines == "auto" else []
    assert built == [("semseg", "depth"), *singles]


@pytest.mark.parametrize("decoder", ["mti_net", "cross_stitch"])
def test_counting_flops_of_a_meta_copy_does_not_change_the_model(decoder: str) -> None:
    experiment = make_tiny_experiment(f"decoder.name={decoder}")
    model = build_model(experiment, build_tasks(experiment)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    meta_model = meta_copy(model)
    tensors = (*meta_model.parameters(), *meta_model.buffers())
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    flops = count_flops(meta_model, experiment.input.size)
    assert model.training
    assert all(torch.equal(model.state_dict()[name], old) for name, old in before.items())
    assert flops == count_flops(model.to("meta"), experiment.input.size)


def test_too_small_input_is_rejected_before_training(tmp_path: Path) -> None:
    small = ("input.size=[32, 32]", "loader.batch_size=1", "baselines=auto")
    with pytest.raises(ModelError, match=r"input\.size: \[32, 32\] is one pixel"):
        train_experiment(make_tiny_experiment(*small), tmp_path / "multi", "cpu")
    assert not list(tmp_path.iterdir())
