"""Configurations of random content: an experiment, or lines that say where and what."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import random_configs
import pytest
from hypothesis import given, settings

from densemtl.config.experiment import Experiment


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.yaml"


@settings(max_examples=50)
@given(random_configs.texts(), random_configs.overrides)
def test_any_file_and_any_overrides(file: Path, text: str, overrides: list[str]) -> None:
    found = random_configs.outcome(file, text, overrides)
    if isinstance(found, Experiment):
        assert random_configs.comes_back(found, file)
    else:
        assert random_configs.is_told_well(found, file)
