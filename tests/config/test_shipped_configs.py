"""Shipped configurations are found by name, after files of the same path."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.config.experiment import load_experiment
from densemtl.config.shipped_configs import SHIPPED_DIR, find_config, get_default_folder
from densemtl.config.yaml_loader import load_config
from densemtl.errors import ConfigError

QUICK = SHIPPED_DIR / "synthetic" / "quick.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the checkout, so that relative paths to its files do not exist."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name", ["synthetic/quick", "synthetic/quick.yaml", "configs/synthetic/quick.yaml"]
)
def test_shipped_configuration_is_found_by_name(name: str) -> None:
    assert find_config(Path(name)) == QUICK
    assert load_experiment(Path(name)) == load_experiment(QUICK)
    assert get_default_folder(Path(name)) == Path("runs/synthetic/quick")


def test_file_of_the_same_name_is_preferred(tmp_path: Path) -> None:
    own = tmp_path / "synthetic" / "quick"
    own.parent.mkdir()
    own.write_text("seed: 7")
    assert load_config(Path("synthetic/quick")).values == {"seed": 7}


def test_shipped_configuration_can_be_inherited(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: synthetic/quick\nseed: 7")
    expected = load_config(QUICK).values | {"seed": 7}
    assert load_config(tmp_path / "mine.yaml").values == expected


@pytest.mark.parametrize(
    "name", ["synthetic/quik", "synthetic", "../configs/synthetic/quick", "a" * 300, "a\0b"]
)
def test_unknown_name_is_reported_as_given(name: str) -> None:
    assert find_config(Path(name)) == Path(name)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Path(name))
