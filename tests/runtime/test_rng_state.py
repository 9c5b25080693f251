"""States of random number generators on the CPU and on a fake GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from densemtl.runtime.rng_state import get_rng_state, set_rng_state


class FakeGpus:
    """Generators of two GPUs, whose state is a number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, current: int) -> None:
        self.current, self.states, self.is_used = current, [10, 11], True
        functions = {
            "is_initialized": lambda: self.is_used,
            "current_device": lambda: self.current,
            "get_rng_state": lambda: self.states[self.current],
            "set_rng_state": self.set_state,
            "manual_seed": self.set_state,
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def set_state(self, state: Any) -> None:
        assert self.is_used, "CUDA was initialized"
        self.states[self.current] = state


def test_state_is_that_of_the_current_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch, current=1)
    state = get_rng_state()
    assert state["cuda"] == [11]
    gpus.states = [0, 0]
    set_rng_state(state)
    assert gpus.states == [0, 11]


@pytest.mark.parametrize(("current", "expected"), [(0, [5, 11]), (1, [10, 6])])
def test_states_of_earlier_versions_are_those_of_all_gpus(
    monkeypatch: pytest.MonkeyPatch, current: int, expected: list[int]
) -> None:
    gpus = FakeGpus(monkeypatch, current)
    set_rng_state({"cpu": torch.get_rng_state(), "cuda": [5, 6]})
    assert gpus.states == expected


def test_unused_gpus_are_not_initialized(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus(monkeypatch, current=0)
    gpus.is_used = False
    state = get_rng_state()
    assert state["cuda"] == []
    set_rng_state(state)
    set_rng_state({**state, "cuda": [5]})
    assert gpus.states == [10, 11]


def test_gpu_that_was_not_used_at_the_time_starts_from_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = FakeGpus(monkeypatch, current=0)
    gpus.is_used = False
    before = torch.get_rng_state()
    torch.random.default_generator.manual_seed(77)
    state = get_rng_state()
    torch.set_rng_state(before)
    gpus.is_used = True
    set_rng_state(state)
    assert gpus.states == [77, 11]
    torch.set_rng_state(before)
