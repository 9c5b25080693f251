"""Random options of everything that a run is built of: a step, or one line for each mistake."""

from __future__ import annotations

from pathlib import Path

import fuzz_runs
import pytest
from experiments import write_tiny
from hypothesis import given, settings


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=15)
@given(fuzz_runs.runs())
def test_any_options(file: Path, overrides: list[str]) -> None:
    code, said = fuzz_runs.attempt(overrides, file)
    assert (code == 0) or (code == 2 and fuzz_runs.is_told_well(said)), said
