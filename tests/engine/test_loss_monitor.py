"""Tests of the loss monitor, which returns and checks losses one step late."""

from __future__ import annotations

import math

import pytest
import torch

from densemtl.engine.loss_monitor import LossMonitor, NonFiniteLossError, RunningMeans


def make_losses(semseg: float, depth: float = 1.0) -> dict[str, torch.Tensor]:
    return {"semseg": torch.tensor(semseg, requires_grad=True), "depth": torch.tensor(depth)}


def test_losses_are_returned_once_and_one_step_late():
    monitor = LossMonitor()
    assert monitor.update(1, make_losses(0.5)) is None
    assert monitor.update(2, make_losses(0.25, 2.0)) == {"semseg": 0.5, "depth": 1.0}
    assert monitor.flush() == {"semseg": 0.25, "depth": 2.0}
    assert monitor.flush() is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_loss_raises_an_error_with_task_and_step(value):
    monitor = LossMonitor()
    monitor.update(7, make_losses(1.0, value))
    with pytest.raises(NonFiniteLossError, match=rf"loss of depth is {value} at step 7"):
        monitor.update(8, make_losses(1.0))


def test_error_names_all_tasks_with_non_finite_loss():
    monitor = LossMonitor()
    monitor.update(3, make_losses(math.nan, math.inf))
    with pytest.raises(NonFiniteLossError, match="semseg is nan, depth is inf at step 3"):
        monitor.flush()


def test_skipped_steps_are_reported_and_left_out():
    messages: list[str] = []
    monitor = LossMonitor(skip_non_finite=True, report=messages.append)
    monitor.update(4, make_losses(math.nan))
    assert monitor.update(5, make_losses(2.0)) is None
    assert messages == ["step 4 skipped: loss of semseg is nan"]
    assert monitor.flush() == {"semseg": 2.0, "depth": 1.0}


def test_running_means_are_reset_when_computed():
    means = RunningMeans()
    assert means.compute_and_reset() == {}
    means.add({"a": 1.0, "b": 4.0})
    means.add(None)
    means.add({"a": 3.0, "b": 0.0})
    assert means.compute_and_reset() == {"a": 2.0, "b": 2.0}
    means.add({"a": 5.0})
    assert means.compute_and_reset() == {"a": 5.0}


def test_steps_without_label_do_not_lower_the_mean_loss():
    means = RunningMeans(["depth", "edge"])
    means.add({"depth": 1.0, "edge": 0.0, "weight/depth": 0.0})
    means.add({"depth": 0.0, "edge": 0.0, "weight/depth": 2.0})
    means.add({"depth": 2.0, "edge": 0.0, "weight/depth": 4.0})
    assert means.compute_and_reset() == {"depth": 1.5, "weight/depth": 2.0}
    assert means.compute() == {}
