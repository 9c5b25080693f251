"""Tests of device, autocast type and memory layout."""

from __future__ import annotations

import os

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


@pytest.mark.parametrize("tf32", [True, False])
def test_gpu_becomes_the_current_one_with_one_precision_for_all_products(monkeypatch, tf32):
    selected = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", selected.append)
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        make_execution_config(TrainConfig(amp="none", tf32=tf32), "cuda:1")
        assert selected == [torch.device("cuda:1")]
        assert [backend.allow_tf32 for backend in backends] == [tf32, tf32]
        make_execution_config(TrainConfig(amp="none"), "cuda")
        assert len(selected) == 1
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def test_deterministic_algorithms_are_used_on_request(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    make_execution_config(TrainConfig(), "cpu")
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # a value of the user is kept
    try:
        make_execution_config(TrainConfig(deterministic=True), "cpu")
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    finally:
        torch.use_deterministic_algorithms(False)
