"""Configurations of random content: an experiment, or lines that say where and what."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest
from hypothesis import given, settings

from densemtl.config import Experiment


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.yaml"


@settings(max_examples=50)
@given(fuzz.texts(), fuzz.overrides)
def test_any_file_and_any_overrides(file: Path, text: str, overrides: list[str]) -> None:
    found = fuzz.outcome(file, text, overrides)
    if isinstance(found, Experiment):
        assert fuzz.comes_back(found, file)
    else:
        assert fuzz.is_told_well(found, file)
