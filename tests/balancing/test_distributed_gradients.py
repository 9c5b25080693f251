"""Gradient methods on two ranks with half of each batch are equal to one process."""

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
    """Results of both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    wait_for_both(start_two_ranks(folder, run_rank, folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(NUM_RANKS)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_two_ranks_equal_one_process(
    ranks: list[dict[str, dict[str, Tensor]]], case: tuple[str, str]
) -> None:
    """Weights are bit-identical on both ranks and equal those of the joint batch in all steps."""
    one, other = (results["-".join(case)] for results in ranks)
    assert torch.equal(one["weights"], other["weights"])
    assert torch.equal(one["parameters"], other["parameters"])
    expected = train(*case, rank=None)
    torch.testing.assert_close(one["weights"], expected["weights"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one["parameters"], expected["parameters"], rtol=1e-4, atol=1e-5)


def test_a_rank_has_no_label_of_a_task() -> None:
    """Check that a rank has no label of one task in one of the steps above."""
    halves = make_joint_data(UNLABELED_STEP)[1].chunk(NUM_RANKS)
    assert [bool(half[:, -1].isnan().all()) for half in halves] == [False, True]
