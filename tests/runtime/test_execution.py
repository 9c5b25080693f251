"""Tests of device, autocast type and memory layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from densemtl.config.sections import TrainConfig
from densemtl.errors import UserError
from densemtl.runtime.execution import ExecutionConfig, make_execution_config
from densemtl.types import Predictions


class Probe(nn.Module):
    """Convolution that records the memory layout of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> Predictions:
        self.channels_last = image.is_contiguous(memory_format=torch.channels_last)
        self.contiguous = image.is_contiguous()
        return Predictions({"depth": self.conv(image)})


@pytest.mark.parametrize(
    ("amp", "dtype"), [("none", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_casts_operations_but_not_parameters(amp, dtype):
    execution = make_execution_config(TrainConfig(amp=amp), "cpu")
    model = execution.to_device(Probe())
    predictions = execution.forward(model, torch.rand(2, 3, 6, 8))
    assert predictions.logits["depth"].dtype == dtype
    assert model.conv.weight.dtype == torch.float32


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_layout_of_images_and_convolutions(channels_last):
    execution = make_execution_config(TrainConfig(channels_last=channels_last), "cpu")
    model = execution.to_device(Probe())
    for image in (torch.rand(2, 3, 6, 8), torch.rand(2, 6, 8, 3).permute(0, 3, 1, 2)):
        execution.forward(model, image)
        assert (model.channels_last, model.contiguous) == (channels_last, not channels_last)
    weight = model.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_device_is_the_requested_one_or_a_gpu_if_available(monkeypatch):
    assert make_execution_config(TrainConfig(), "cpu").device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    float32 = TrainConfig(amp="none")
    assert make_execution_config(float32, None) == ExecutionConfig(torch.device("cpu"), None, True)
    with pytest.raises(UserError, match="--device cuda:1: no usable GPU"):
        make_execution_config(TrainConfig(), "cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_execution_config(float32, None).device == torch.device("cuda")
