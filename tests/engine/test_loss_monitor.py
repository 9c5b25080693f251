"""Losses one step late, checked as they are read."""

from __future__ import annotations

import math

import pytest
import torch

from densemtl.engine.loss_monitor import LossMonitor, NonFiniteLossError, RunningMeans


def losses(semseg: float, depth: float = 1.0) -> dict[str, torch.Tensor]:
    return {"semseg": torch.tensor(semseg, requires_grad=True), "depth": torch.tensor(depth)}


def test_each_step_is_given_back_once_one_step_late():
    monitor = LossMonitor()
    assert monitor.update(1, losses(0.5)) is None
    assert monitor.update(2, losses(0.25, 2.0)) == {"semseg": 0.5, "depth": 1.0}
    assert monitor.flush() == {"semseg": 0.25, "depth": 2.0}
    assert monitor.flush() is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_its_task_and_step(value):
    monitor = LossMonitor()
    monitor.update(7, losses(1.0, value))
    with pytest.raises(NonFiniteLossError, match=rf"loss of depth is {value} at step 7"):
        monitor.update(8, losses(1.0))


def test_every_broken_task_is_named():
    monitor = LossMonitor()
    monitor.update(3, losses(math.nan, math.inf))
    with pytest.raises(NonFiniteLossError, match="semseg is nan, depth is inf at step 3"):
        monitor.flush()


def test_forgiven_steps_are_told_and_left_out():
    told: list[str] = []
    monitor = LossMonitor(skip_non_finite=True, report=told.append)
    monitor.update(4, losses(math.nan))
    assert monitor.update(5, losses(2.0)) is None
    assert told == ["step 4 skipped: loss of semseg is nan"]
    assert monitor.flush() == {"semseg": 2.0, "depth": 1.0}


def test_means_since_they_were_last_taken():
    means = RunningMeans()
    assert means.compute_and_reset() == {}
    means.add({"a": 1.0, "b": 4.0})
    means.add(None)
    means.add({"a": 3.0, "b": 0.0})
    assert means.compute_and_reset() == {"a": 2.0, "b": 2.0}
    means.add({"a": 5.0})
    assert means.compute_and_reset() == {"a": 5.0}
