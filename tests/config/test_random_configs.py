"""Configurations of random content: an experiment, or lines that say where and what."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from densemtl.config.experiment import ExperimentConfig
from tests.helpers import random_configs


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.yaml"


@settings(max_examples=50)
@given(random_configs.texts(), random_configs.overrides)
def test_any_file_and_any_overrides(file: Path, text: str, overrides: list[str]) -> None:
    found = random_configs.load_outcome(file, text, overrides)
    if isinstance(found, ExperimentConfig):
        assert random_configs.is_saved_unchanged(found, file)
    else:
        assert random_configs.is_clear_error(found, file)
