"""Two processes that share each batch train as one, with equal weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.gradient_balancing_ranks import (
    CASES,
    NUM_RANKS,
    UNLABELED_STEP,
    make_joint_data,
    run_rank,
    train,
)
from tests.helpers.two_ranks import start_two_ranks, wait_for_both

pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')

IDS = ["-".join(case) for case in CASES]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What both found."""
    folder = tmp_path_factory.mktemp("ranks")
    wait_for_both(start_two_ranks(folder, run_rank, folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(NUM_RANKS)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_two_ranks_are_one_process(
    ranks: list[dict[str, dict[str, Tensor]]], case: tuple[str, str]
) -> None:
    """Weights are the same bit for bit, and those of the joined batch, in every step."""
    one, other = (found["-".join(case)] for found in ranks)
    assert torch.equal(one["weights"], other["weights"])
    assert torch.equal(one["parameters"], other["parameters"])
    alone = train(*case, rank=None)
    torch.testing.assert_close(one["weights"], alone["weights"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one["parameters"], alone["parameters"], rtol=1e-4, atol=1e-5)


def test_a_rank_misses_a_task() -> None:
    """In one of the steps above."""
    halves = make_joint_data(UNLABELED_STEP)[1].chunk(NUM_RANKS)
    assert [bool(half[:, -1].isnan().all()) for half in halves] == [False, True]
