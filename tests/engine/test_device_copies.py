"""Tests of copies to a GPU by a stream of their own, with a fake GPU that records operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from densemtl.config.sections import TrainConfig
from densemtl.engine.device_copies import copy_to_device
from densemtl.runtime.execution import tune_convolutions
from densemtl.types import Batch, CachedFeatures

CUDA = torch.device("cuda", 0)


def make_batch(number: int) -> Batch:
    features = CachedFeatures((torch.full((1,), float(number)),), (2, 2))
    targets = {"depth": torch.full((2,), float(number))}
    return Batch(torch.full((3,), float(number)), targets, [str(number)], [], features)


class FakeStream:
    """Stream that records what happens in it."""

    events: list[str]

    def __init__(self, name: object) -> None:
        self.name = name

    def wait_stream(self, other: FakeStream) -> None:
        self.events.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace streams and copies to the GPU; return the recorded operations."""
    events: list[str] = []
    FakeStream.events, active = events, [FakeStream("main")]

    @contextmanager
    def use_stream(stream: FakeStream) -> Iterator[None]:
        active.append(stream)
        yield
        active.pop()

    def move(batch: Batch, _: torch.device) -> Batch:
        events.append(f"copy {batch.ids[0]} in {active[-1].name}")
        return batch

    def record(tensor: Tensor, stream: FakeStream) -> None:
        events.append(f"{stream.name} uses {int(tensor.flatten()[0])}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: FakeStream("copies"))
    monkeypatch.setattr(torch.cuda, "stream", use_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: active[-1])
    monkeypatch.setattr(Batch, "to", move)
    monkeypatch.setattr(Tensor, "record_stream", record)
    return events


def test_each_step_waits_for_its_copies_only(events: list[str]) -> None:
    loaded = []

    def load() -> Iterator[list[Batch]]:
        for number in range(3):
            loaded.append(number)
            yield [make_batch(number)]

    for number, (batch,) in enumerate(copy_to_device(load(), CUDA)):
        assert loaded == list(range(number + 1))  # no batch is read too early
        assert batch.ids == [str(number)]
        uses = [f"main uses {number}"] * 3
        assert events == [f"copy {number} in copies", "main waits for copies", *uses]
        events.clear()


def test_batches_stay_unchanged_without_a_gpu(events: list[str]) -> None:
    steps = [[make_batch(0), make_batch(1)], [make_batch(2)]]
    assert list(copy_to_device(steps, torch.device("cpu"))) == steps
    assert events == []


@pytest.mark.parametrize(
    ("device", "deterministic", "expected"),
    [("cuda", False, True), ("cuda", True, False), ("cpu", False, False)],
)
def test_algorithms_are_measured_on_gpus_unless_deterministic(
    device: str, deterministic: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not expected)
    tune_convolutions(torch.device(device), TrainConfig(deterministic=deterministic))
    assert torch.backends.cudnn.benchmark == expected
