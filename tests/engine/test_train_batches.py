"""Tests of the batches of training steps: order, stops within epochs, and reading ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from densemtl.data.samplers import EpochSampler
from densemtl.engine.train_batches import TrainBatches
from densemtl.types import Batch
from tests.engine.test_trainer import make_run

TWO_BATCHES = "train.grad_accum_steps=2"  # two steps per epoch


def list_names(steps: Iterator[list[Batch]]) -> list[list[str]]:
    return [[name for batch in batches for name in batch.ids] for batches in steps]


def iterate_fresh(folder: Path, epoch: int, steps_done: int, num_steps: int) -> list[list[str]]:
    """Return the image names of steps that are read by a new loader."""
    batches = TrainBatches(make_run(folder, TWO_BATCHES))
    return list_names(batches.iterate(epoch, steps_done, num_steps))


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("read_ahead", [False, True])
def test_steps_are_those_of_a_new_loader(
    tmp_path: Path, num_workers: int, read_ahead: bool
) -> None:
    run = make_run(tmp_path, TWO_BATCHES, f"loader.num_workers={num_workers}")
    batches = TrainBatches(run)
    ranges = [(0, 0, 1), (0, 1, 1), (1, 0, 2), (0, 0, 1), (2, 1, 1), (3, 0, 2)]
    for steps in ranges:  # stops within epochs, the next epoch, and jumps
        names = list_names(batches.iterate(*steps, read_ahead=read_ahead))
        assert names == iterate_fresh(tmp_path, *steps), steps


@pytest.mark.parametrize(("read_ahead", "epochs"), [(False, [0]), (True, [0, 1])])
def test_next_epoch_is_read_when_the_last_batch_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read_ahead: bool, epochs: list[int]
) -> None:
    drawn = []
    draw_epoch = EpochSampler.draw_epoch

    def record(sampler: EpochSampler):  # type: ignore[no-untyped-def]
        drawn.append(sampler.epoch)
        return draw_epoch(sampler)

    monkeypatch.setattr(EpochSampler, "draw_epoch", record)
    steps = TrainBatches(make_run(tmp_path, TWO_BATCHES, "loader.num_workers=1")).iterate(
        0, 0, 2, read_ahead=read_ahead
    )
    next(steps)
    assert drawn == [0]
    next(steps)
    assert drawn == epochs


def test_stop_within_an_epoch_does_not_start_the_loader_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    starts = []
    start = TrainBatches._start

    def record(batches: TrainBatches, epoch: int, step: int) -> None:
        starts.append((epoch, step))
        start(batches, epoch, step)

    monkeypatch.setattr(TrainBatches, "_start", record)
    batches = TrainBatches(run)
    for epoch, step, count in [(0, 0, 3), (0, 3, 1), (1, 0, 4)]:
        assert len(list(batches.iterate(epoch, step, count, read_ahead=True))) == count
    assert starts == [(0, 0), (1, 0), (2, 0)]
