"""The model that a run starts from: weights of the seed alone, built once, counted as it is."""

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


def test_weights_and_following_random_numbers_depend_on_the_seed_alone() -> None:
    experiment = make_tiny_experiment("seed=3")
    torch.manual_seed(3)
    expected = build_model(experiment, build_tasks(experiment)).state_dict()
    numbers = torch.rand(4)
    torch.manual_seed(99)
    initial = build_initial_model(experiment, build_tasks(experiment))
    found = initial.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    torch.set_rng_state(initial.rng_state["cpu"])
    assert torch.equal(torch.rand(4), numbers)


def test_a_job_goes_on_with_the_random_numbers_after_the_model(tmp_path: Path) -> None:
    experiment = make_tiny_experiment()
    initial = build_initial_model(experiment, build_tasks(experiment))
    torch.manual_seed(99)  # as training other models in between does
    precision = make_execution_config(experiment.train, "cpu")
    job = build_training_run(
        experiment, build_splits(experiment), tmp_path, precision, None, initial
    )
    assert job.train_step.model is initial.model
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
def test_flop_are_those_of_the_model_and_leave_it_as_it_was(decoder: str) -> None:
    experiment = make_tiny_experiment(f"decoder.name={decoder}")
    model = build_model(experiment, build_tasks(experiment)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = meta_copy(model)
    assert {each.device.type for each in (*copied.parameters(), *copied.buffers())} == {"meta"}
    flop = count_flops(copied, experiment.input.size)
    assert model.training
    assert all(torch.equal(model.state_dict()[name], old) for name, old in before.items())
    assert flop == count_flops(model.to("meta"), experiment.input.size)


def test_an_input_too_small_to_train_on_is_reported_first(tmp_path: Path) -> None:
    small = ("input.size=[32, 32]", "loader.batch_size=1", "baselines=auto")
    with pytest.raises(ModelError, match=r"input\.size: \[32, 32\] is one pixel"):
        train_experiment(make_tiny_experiment(*small), tmp_path / "multi", "cpu")
    assert not list(tmp_path.iterdir())
