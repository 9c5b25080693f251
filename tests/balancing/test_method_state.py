"""What rules remember: saved in the middle it goes on exactly, and it is the same on all ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from tests.helpers.two_ranks import both, start

from tests.helpers.loss_balancing_ranks import NAMES, RULES, STEPS, Course, joined, losses_of, make, work

MIDDLE = 3
"""Inside an epoch."""


def whole_course(name: str) -> list[Tensor]:
    course = Course(make(name))
    return [course.step(i, losses_of(i, 0)) for i in range(STEPS)]


@pytest.mark.parametrize("name", RULES)
def test_saved_inside_an_epoch_it_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    expected = whole_course(name)
    torch.manual_seed(0)
    first = Course(make(name))
    for i in range(MIDDLE):
        first.step(i, losses_of(i, 0))
    torch.save(first.rule.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(1)
    second = Course(make(name))
    second.rule.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for i in range(MIDDLE, STEPS):
        assert torch.equal(second.step(i, losses_of(i, 0)), expected[i])


@pytest.mark.parametrize("name", [rule for rule in RULES if rule not in ("equal", "gls")])
def test_the_state_matters(name: str) -> None:
    """Otherwise the test above would hold for a rule that saves nothing."""
    torch.manual_seed(0)
    expected = whole_course(name)
    torch.manual_seed(0)
    fresh = Course(make(name))
    assert not torch.equal(fresh.step(STEPS - 1, losses_of(STEPS - 1, 0)), expected[-1])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What both ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    both(start(folder, work, folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", RULES)
def test_ranks_weigh_alike(ranks: list[dict[str, Tensor]], name: str) -> None:
    """Bit for bit, in every step, though their losses and seeds differ."""
    one, other = (found[name][:, 0] for found in ranks)
    assert one.shape == (STEPS, len(NAMES))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", [rule for rule in RULES if rule != "rlw"])
def test_two_ranks_are_one_process(ranks: list[dict[str, Tensor]], name: str) -> None:
    """Weights are those of the joined batch, and so is the mean gradient."""
    course = Course(make(name))
    one, other = (found[name] for found in ranks)
    for i in range(STEPS):
        weights, gradient = course.step(i, joined(i))
        torch.testing.assert_close(one[i, 0], weights)
        torch.testing.assert_close((one[i, 1] + other[i, 1]) / 2, gradient)
