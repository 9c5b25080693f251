"""Tests of checkpoints that are written in the background: content, errors, signals, resuming."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_flatten

from densemtl.engine import checkpoint
from densemtl.engine.checkpoint import read_checkpoint
from densemtl.engine.checkpoint_writer import CheckpointWriter
from densemtl.engine.run_log import read_log
from densemtl.engine.train_state import read_progress
from densemtl.errors import OutputError
from densemtl.factory import build_splits
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.forked_tools import ForkedProcess, start_forked
from tests.helpers.train_states import make_train_state

SETTINGS = (
    *("train.async_checkpoints=true", "train.checkpoint_every_steps=1", "train.ema_decay=0.9"),
    *("train.epochs=1", "optim.name=adamw"),
)
KEEP_WRITING = "the second checkpoint is being written"
"""File that marks that the test's process is inside its second write."""


def train_in(folder: Path, *overrides: str) -> None:
    from densemtl.engine.trainer import train

    experiment = make_tiny_experiment(*overrides)
    execution = make_execution_config(experiment.train, "cpu")
    train(build_training_run(experiment, build_splits(experiment), folder, execution))


def train_slowly(folder: Path, seconds: float) -> None:
    """Train, but stay for some seconds inside the second write of a checkpoint."""
    write_weights, numbers = checkpoint.write_weights, iter(range(100))

    def write_and_sleep(*arguments: object, **header: str) -> None:
        write_weights(*arguments, **header)
        if next(numbers) == 1:
            (folder / KEEP_WRITING).touch()
            time.sleep(seconds)

    checkpoint.write_weights = write_and_sleep
    train_in(folder, *SETTINGS)


def start_slow_training(folder: Path, seconds: float) -> ForkedProcess:
    folder.mkdir()
    return start_forked(folder.parent / "output.txt", {}, train_slowly, folder, seconds)


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 300
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def have_equal_content(first: object, second: object) -> bool:
    """Compare nested containers of tensors and other values exactly."""
    (values, structure), (others, other_structure) = tree_flatten(first), tree_flatten(second)
    return structure == other_structure and all(
        torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        for value, other in zip(values, others, strict=True)
    )


def have_equal_checkpoints(first: Path, second: Path) -> bool:
    """Compare weights, optimizer, moving average and random number generators of two runs."""
    (weights, state), (other, other_state) = map(read_checkpoint, (first, second))
    return have_equal_content(weights.tensors, other.tensors) and all(
        have_equal_content(state[name], other_state[name])
        for name in ("optimizer", "ema", "rng", "scaler")
    )


def test_checkpoint_contains_the_state_at_the_time_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, released, write = make_train_state(), threading.Event(), checkpoint.write_checkpoint
    state.save(tmp_path / "expected", "x: 1")
    expected = read_checkpoint(tmp_path / "expected")

    def write_late(*arguments: object) -> None:
        assert released.wait(60)
        write(*arguments)

    monkeypatch.setattr("densemtl.engine.checkpoint_writer.write_checkpoint", write_late)
    writer = CheckpointWriter(in_background=True)
    writer.save(state, tmp_path / "background", "x: 1")
    torch.autograd.backward(state.model(torch.ones(1, 3)).sum())
    state.optimizer.step()
    state.progress.step = 9
    writer.check()
    assert read_checkpoint(tmp_path / "background") is None
    released.set()
    writer.wait()
    actual = read_checkpoint(tmp_path / "background")
    assert have_equal_content(actual[1], expected[1])
    assert have_equal_content(actual[0].tensors, expected[0].tensors)


def save_and_wait(writer: CheckpointWriter, folder: Path) -> None:
    writer.save(make_train_state(), folder, "x: 1")
    writer.wait()


@pytest.mark.parametrize("in_background", [False, True])
def test_failed_write_is_an_error_of_one_line(tmp_path: Path, in_background: bool) -> None:
    """A file in place of the run folder cannot hold a checkpoint."""
    writer = CheckpointWriter(in_background)
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match=r"run/last: cannot be written"):
        save_and_wait(writer, tmp_path / "run")
    writer.wait()  # each error is raised once


def test_failed_write_ends_the_run_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OutputError("no space")

    monkeypatch.setattr("densemtl.engine.checkpoint_writer.write_checkpoint", fail)
    original_check = CheckpointWriter.check

    def check(self: CheckpointWriter) -> None:
        while self._thread is not None and self._thread.is_alive():
            time.sleep(0.001)
        original_check(self)

    monkeypatch.setattr(CheckpointWriter, "check", check)
    with pytest.raises(OutputError, match="no space"):
        train_in(tmp_path, *SETTINGS)
    steps = [line["step"] for line in read_log(tmp_path / "log.jsonl")]
    assert steps
    assert max(steps) == 1


def save_in_run(folder: Path, report: Callable[[str], None], interrupted: bool) -> None:
    writer = CheckpointWriter(in_background=True)
    with writer.running(report):
        writer.save(make_train_state(), folder, "x: 1")
        if interrupted:
            raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [False, True])
def test_failed_last_write_is_raised_or_reported(interrupted: bool, tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "run").write_text("")
    with pytest.raises(KeyboardInterrupt if interrupted else OutputError):
        save_in_run(tmp_path / "run", lines.append, interrupted)
    assert len(lines) == interrupted
    assert all("run/last: cannot be written" in line for line in lines)


def test_handler_of_sigterm_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with CheckpointWriter(in_background=True).running(print):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    with CheckpointWriter().running(print):
        assert signal.getsignal(signal.SIGTERM) == before


def test_run_killed_during_a_write_resumes_exactly(tmp_path: Path) -> None:
    process = start_slow_training(tmp_path / "killed", 300)
    process.kill_when_exists(tmp_path / "killed" / KEEP_WRITING)
    assert process.wait() == -signal.SIGKILL
    assert read_progress(tmp_path / "killed").step == 1
    train_in(tmp_path / "killed", *SETTINGS)
    train_in(tmp_path / "uninterrupted", *SETTINGS, "train.async_checkpoints=false")
    assert have_equal_checkpoints(tmp_path / "killed", tmp_path / "uninterrupted")
    lines = read_log(tmp_path / "killed" / "log.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "checkpoint"] == [1, 2, 3, 4]


def test_sigterm_completes_the_write(tmp_path: Path) -> None:
    process = start_slow_training(tmp_path / "run", 1)
    wait_for(tmp_path / "run" / KEEP_WRITING)
    os.kill(process.process.pid or 0, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    assert read_progress(tmp_path / "run").step == 2
