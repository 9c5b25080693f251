"""Tests of choices that depend on the hardware."""

from __future__ import annotations

import platform
import time
import warnings

import pytest
import torch
from torch import nn

from densemtl.runtime import hardware

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def patch_cpu(monkeypatch, machine: str, onednn: bool, instructions: tuple[str, ...]) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    for name in hardware.X86_BF16:
        supported = name in instructions
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda s=supported: s)


def has_warning(amp: str) -> bool:
    """Return whether one line warns of emulation on the CPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hardware.warn_if_emulated(amp, CPU)
    texts = [str(warning.message) for warning in caught]
    assert all("emulates them" in text and "\n" not in text for text in texts)
    assert len(texts) <= 1
    return bool(texts)


@pytest.mark.parametrize(
    ("machine", "onednn", "instructions", "expected"),
    [
        ("x86_64", False, (), False),  # AVX2 only
        ("x86_64", True, (), False),  # AVX-512 without bfloat16 instructions
        ("x86_64", True, ("avx512_bf16",), True),
        ("x86_64", True, ("amx_tile",), True),
        ("aarch64", True, (), True),
        ("arm64", False, (), False),
    ],
)
def test_bf16_is_used_only_with_bf16_instructions(
    monkeypatch, machine, onednn, instructions, expected
):
    patch_cpu(monkeypatch, machine, onednn, instructions)
    assert hardware.has_native_bf16(CPU) is expected
    assert hardware.resolve_amp("auto", CPU) == ("bf16" if expected else "none")
    assert has_warning("bf16") is not expected


@pytest.mark.parametrize("supported", [True, False])
def test_gpu_is_asked_for_bf16_without_emulation(monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert hardware.resolve_amp("auto", GPU) == ("bf16" if supported else "none")


def test_bf16_is_not_chosen_on_other_devices():
    assert hardware.resolve_amp("auto", torch.device("mps")) == "none"


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_requested_types_are_kept_and_only_bf16_can_be_emulated(monkeypatch, amp):
    patch_cpu(monkeypatch, "x86_64", False, ())
    assert hardware.resolve_amp(amp, CPU) == amp
    assert has_warning(amp) == (amp == "bf16")


@pytest.mark.parametrize("faster", [True, False])
def test_faster_layout_is_chosen_without_side_effects(faster):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.rand(2, 3, 8, 8)
    state = torch.get_rng_state()
    layouts = []

    def run_forward(probe, image, channels_last):
        layouts.append(channels_last)
        if channels_last is not faster:
            time.sleep(0.05)
        return (probe(image) * torch.rand(())).sum()

    choice, seconds = hardware.choose_channels_last(model, image, run_forward)
    assert choice is faster
    assert min(seconds, key=seconds.__getitem__) == ("channels_last" if faster else "contiguous")
    assert layouts == [True, False] * hardware.LAYOUT_STEPS
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layouts_of_similar_speed_give_channels_last(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(hardware, "_synchronized_time", lambda: clock[0])

    def run_forward(probe, image, channels_last):
        clock[0] += 0.05 if channels_last else 0.049
        return probe(image).sum()

    assert hardware.choose_channels_last(nn.Conv2d(3, 4, 1), torch.rand(1, 3, 8, 8), run_forward)[0]
