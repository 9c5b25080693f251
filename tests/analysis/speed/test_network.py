"""Tests of the model that is measured, and of the training loops that it is compared with."""

from __future__ import annotations

import pytest
import torch

from densemtl.analysis.speed.network import make_benchmark_target, make_reference_step
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
