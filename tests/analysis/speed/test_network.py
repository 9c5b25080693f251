"""Tests of the model that is measured, and of the training loops that it is compared with."""

from __future__ import annotations

import pytest
import torch

from densemtl.analysis.speed.network import make_framework_step, make_reference_step
from densemtl.analysis.speed.target import BenchmarkTarget, make_benchmark_target
from densemtl.models import memory_layout
from densemtl.runtime.execution import ExecutionConfig
from tests.helpers.experiments import make_tiny_experiment

CPU = torch.device("cpu")


@pytest.mark.parametrize("faster", [False, True])
def test_layout_is_chosen_as_in_a_training(monkeypatch, faster):
    monkeypatch.setattr(memory_layout, "choose_channels_last", lambda *_: (faster, {}))
    experiment = make_tiny_experiment("train.channels_last=auto")
    target = make_benchmark_target(experiment, ExecutionConfig(CPU)).with_chosen_layout()
    assert target.precision.channels_last is faster
    assert target.experiment.train.channels_last is faster
    weight = next(each for each in target.model.parameters() if each.ndim == 4 and each.size(2) > 1)
    layout = torch.channels_last if faster else torch.contiguous_format
    assert weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("channels_last", [False, True])
def test_plain_loop_runs_in_its_own_layout(monkeypatch, channels_last):
    target = make_benchmark_target(make_tiny_experiment(), ExecutionConfig(CPU))
    before = {name: value.clone() for name, value in target.model.state_dict().items()}
    images = []
    forward = ExecutionConfig.forward

    def record(self, model, image, **options):
        def run(image, **more):
            images.append(image)
            return model(image, **more)

        return forward(self, run, image, **options)

    monkeypatch.setattr(ExecutionConfig, "forward", record)
    make_reference_step(target, ExecutionConfig(CPU, channels_last=channels_last))()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert [image.is_contiguous(memory_format=layout) for image in images] == [True]
    after = target.model.state_dict()  # a copy of the model is trained
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("decoder", ["hard_sharing", "pad_net", "atrc"])
def test_plain_loop_minimizes_the_losses_of_a_training_step(monkeypatch, decoder):
    experiment = make_tiny_experiment(f"decoder.name={decoder}", "optim.name=sgd")
    target = make_benchmark_target(experiment, ExecutionConfig(CPU))
    models = []
    make_train_step = BenchmarkTarget.make_train_step

    def record(self):
        step = make_train_step(self)
        models.append(step.model)
        return step

    monkeypatch.setattr(BenchmarkTarget, "make_train_step", record)
    for step in (make_framework_step(target), make_reference_step(target, ExecutionConfig(CPU))):
        torch.manual_seed(0)
        step()
    initial, (found, expected) = target.model.state_dict(), (each.state_dict() for each in models)
    changed = {name for name, value in found.items() if not torch.equal(value, initial[name])}
    assert len(changed) > len(found) / 2
    for name in changed:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
