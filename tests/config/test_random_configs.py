"""Random configurations: each one loads as an experiment or gives clear error messages."""

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
def test_random_file_and_overrides_load_or_give_clear_errors(
    file: Path, text: str, overrides: list[str]
) -> None:
    outcome = random_configs.load_outcome(file, text, overrides)
    if isinstance(outcome, ExperimentConfig):
        assert random_configs.is_saved_unchanged(outcome, file)
    else:
        assert random_configs.is_clear_error(outcome, file)
