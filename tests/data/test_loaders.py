"""Tests of the number of worker processes of loaders."""

from __future__ import annotations

import pytest
import torch

from densemtl.data import loaders
from densemtl.errors import ConfigError
from tests.helpers.experiments import make_tiny_experiment


@pytest.mark.parametrize(
    ("has_gpu", "cores", "local_ranks", "expected"),
    [
        (False, 1, 1, 1),
        (False, 16, 1, 2),
        (False, 2, 4, 1),
        (True, 4, 1, 4),
        (True, 16, 1, 8),
        (True, 16, 4, 4),
    ],
)
def test_automatic_workers_follow_the_hardware(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, cores: int, local_ranks: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(loaders, "count_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_ranks))
    assert loaders.count_workers("auto") == expected


@pytest.mark.parametrize("number", [0, 5, 40])
def test_given_number_of_workers_is_kept(number: int) -> None:
    assert loaders.count_workers(number) == number


@pytest.mark.parametrize("value", ["many", "-1", "1.5"])
def test_wrong_number_of_workers_is_one_error(value: str) -> None:
    with pytest.raises(ConfigError, match=r"num_workers: must be a number from 0, or auto, not"):
        make_tiny_experiment(f"loader.num_workers={value}")
