"""Tests of the moving average of weights against timm and against its definition."""

from __future__ import annotations

import pytest
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from densemtl.engine.weight_average import WeightAverage


class Net(nn.Module):
    """Network with parameters, saved and unsaved buffers, and a module that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.again = self.norm
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def change(model: nn.Module) -> None:
    """Change all parameters and buffers, as a training step does."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(torch.randn_like(tensor) if tensor.is_floating_point() else 1)


def test_average_equals_that_of_timm_exactly() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    expected, actual = ModelEmaV3(model, 0.7, use_warmup=True), WeightAverage(model, 0.7)
    for step in range(8):
        change(model)
        expected.update(model, step)
        actual.update(model, step)
        pairs = zip(
            expected.module.state_dict().items(), actual.module.state_dict().items(), strict=True
        )
        assert all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def test_each_tensor_of_the_state_dict_moves_once_by_the_definition() -> None:
    model, decay = Net(), 0.5
    average = WeightAverage(model, decay)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(5):
        change(model)
        model.norm.running_mean = model.norm.running_mean.clone()  # a replaced buffer
        average.update(model, step)
        rate = 1 - min(decay, 1 - max(step, 1) ** (-2 / 3))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = expected[name] + rate * (tensor - expected[name])
            else:
                expected[name] = tensor.clone()
        torch.testing.assert_close(dict(average.module.state_dict()), expected)
    assert torch.equal(average.module.scratch, torch.zeros(2))
    assert not average.module.training


@pytest.mark.parametrize(("step", "decay"), [(0, 0.0), (1, 0.0), (2, 1 - 2 ** (-2 / 3)), (99, 0.9)])
def test_decay_increases_to_its_limit(step: int, decay: float) -> None:
    assert WeightAverage(nn.Linear(1, 1), 0.9).compute_decay(step) == pytest.approx(decay)
