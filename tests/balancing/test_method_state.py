"""State of loss-weighting methods: resuming within an epoch, and equality on all ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.loss_balancing_ranks import (
    METHOD_OPTIONS,
    STEPS,
    TASK_NAMES,
    LossTraining,
    make_balancer,
    make_joint_losses,
    make_losses,
    run_rank,
)
from tests.helpers.two_ranks import start_two_ranks, wait_for_both

MIDDLE = 3
"""Step within an epoch."""


def run_all_steps(name: str) -> list[Tensor]:
    training = LossTraining(make_balancer(name))
    return [training.step(i, make_losses(i, 0)) for i in range(STEPS)]


@pytest.mark.parametrize("name", METHOD_OPTIONS)
def test_resume_within_epoch_is_bit_exact(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    expected = run_all_steps(name)
    torch.manual_seed(0)
    first = LossTraining(make_balancer(name))
    for i in range(MIDDLE):
        first.step(i, make_losses(i, 0))
    torch.save(first.balancer.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(1)
    second = LossTraining(make_balancer(name))
    second.balancer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for i in range(MIDDLE, STEPS):
        assert torch.equal(second.step(i, make_losses(i, 0)), expected[i])


@pytest.mark.parametrize(
    "name", [method for method in METHOD_OPTIONS if method not in ("equal", "gls")]
)
def test_weights_depend_on_state(name: str) -> None:
    """Check that the test above fails for a method that saves nothing."""
    torch.manual_seed(0)
    expected = run_all_steps(name)
    torch.manual_seed(0)
    fresh = LossTraining(make_balancer(name))
    assert not torch.equal(fresh.step(STEPS - 1, make_losses(STEPS - 1, 0)), expected[-1])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Results of both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    wait_for_both(start_two_ranks(folder, run_rank, folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", METHOD_OPTIONS)
def test_weights_are_equal_on_all_ranks(ranks: list[dict[str, Tensor]], name: str) -> None:
    """Weights are bit-identical in every step, although losses and seeds of the ranks differ."""
    one, other = (found[name][:, 0] for found in ranks)
    assert one.shape == (STEPS, len(TASK_NAMES))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", [method for method in METHOD_OPTIONS if method != "rlw"])
def test_two_ranks_equal_one_process(ranks: list[dict[str, Tensor]], name: str) -> None:
    """The weights are those of the joint batch, and so is the mean gradient."""
    training = LossTraining(make_balancer(name))
    one, other = (found[name] for found in ranks)
    for i in range(STEPS):
        weights, gradient = training.step(i, make_joint_losses(i))
        torch.testing.assert_close(one[i, 0], weights)
        torch.testing.assert_close((one[i, 1] + other[i, 1]) / 2, gradient)
