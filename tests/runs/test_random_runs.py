"""Tests of random configurations: one training step, or one error line per mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.helpers import random_runs
from tests.helpers.experiments import write_tiny_config


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_config(tmp_path_factory.mktemp("random"))


def test_single_pixel_at_the_coarsest_level_is_rejected(file: Path) -> None:
    overrides = ["input.size=[8, 24]", "loader.batch_size=1", "trackers=[]"]
    code, output = random_runs.run_one_step(overrides, file)
    assert code == 2
    assert output.startswith(
        "error: input.size: [8, 24] is one pixel at the backbone's stride of 32"
    )
    assert random_runs.run_one_step([*overrides, "input.size=[8, 33]"], file) == (0, "")


@settings(max_examples=10)
@given(random_runs.runs())
def test_random_options_run_or_raise_clear_errors(file: Path, overrides: list[str]) -> None:
    code, output = random_runs.run_one_step(overrides, file)
    assert (code == 0) or (code == 2 and random_runs.is_clear_error(output)), output
