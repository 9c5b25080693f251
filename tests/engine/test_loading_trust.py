"""Weights from elsewhere import no custom class unless this is allowed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import densemtl
from densemtl import registry
from densemtl.config.experiment import load_saved
from densemtl.data.datasets.shard_index import ShardStore
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import save_weights
from densemtl.errors import ConfigError, DataError, UserError
from densemtl.factory import build_model, build_tasks
from densemtl.runs.predictions_cli import load_experiment_from
from tests.helpers.experiments import make_tiny_experiment

EVIL = "evil_module:Evil"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a module that leaves a file behind when it is imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "evil_module.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('executed').touch()\nclass Evil: pass\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)
    return folder / "executed"


def write_weights(folder: Path, change: dict[str, Any]) -> Path:
    experiment = make_tiny_experiment("tasks=[semseg, normals]")
    model = build_model(experiment, build_tasks(experiment), pretrained=False)
    folder.mkdir(exist_ok=True)
    config = yaml.safe_dump({**yaml.safe_load(experiment.to_yaml()), **change})
    save_weights(folder / "model.safetensors", model, config)
    (folder / "config.yaml").write_text(config)
    return folder


CHANGES: list[dict[str, Any]] = [
    {"protocol": EVIL},
    {"trackers": [EVIL]},
    {"trackers": [{"name": EVIL}]},
    {"data": {"name": EVIL}},
    {"decoder": {"name": EVIL}},
    {"head": {"name": EVIL}},
    {"balancing": {"name": EVIL}},
    {"tasks": ["semseg", {"name": "normals", "kind": EVIL}]},
    {"tasks": [{"name": "semseg", "metrics": [EVIL]}]},
    {"tasks": [{"name": "semseg", "metrics": [{"name": EVIL}]}]},
    {"auxiliary_tasks": [{"name": "depth", "kind": EVIL}]},
]

LOADERS: list[Callable[[Path], object]] = [
    load_trained_model,
    densemtl.from_pretrained,
    densemtl.Predictor.from_run,
    densemtl.Predictor.from_pretrained,
    lambda folder: load_experiment_from(folder, []),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_custom_class_is_not_imported(change: dict[str, Any], tmp_path: Path, marker: Path) -> None:
    folder = write_weights(tmp_path / "weights", change)
    for load in LOADERS:
        with pytest.raises(ConfigError, match=r"names evil_module:Evil.*--trust-custom-code"):
            load(folder)
        assert not marker.exists()


def test_custom_class_is_imported_with_trust(tmp_path: Path, marker: Path) -> None:
    folder = write_weights(tmp_path / "weights", {"trackers": [EVIL]})
    assert load_trained_model(folder, device="cpu", trust_custom_code=True).tasks
    assert marker.exists()


def test_index_of_shards_cannot_name_custom_class(tmp_path: Path, marker: Path) -> None:
    index = {"offers": {"semseg": {"kind": EVIL}}, "splits": {}}
    (tmp_path / "shards.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="an index must not name") as error:
        ShardStore(str(tmp_path), tmp_path, 1).read_index()
    assert "\n" not in str(error.value)
    folder = write_weights(
        tmp_path / "weights", {"data": {"name": "shards", "root": str(tmp_path)}}
    )
    with pytest.raises(UserError):
        load_trained_model(folder)
    assert not marker.exists()


def test_inner_context_cannot_allow_custom_code(marker: Path) -> None:
    with (
        registry.custom_code(False),
        registry.custom_code(True),
        pytest.raises(ConfigError, match="--trust-custom-code"),
    ):
        registry.get_class("heads", EVIL)
    assert not marker.exists()
    assert registry.get_class("heads", EVIL).__name__ == "Evil"


@pytest.mark.parametrize(
    "statement", ["raise SystemExit(3)", "raise OSError('a\\nb')", "1 / 0", "not python"]
)
def test_failed_import_of_custom_class_is_one_line(
    statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text(statement)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot import 'failing_module:Net'") as error:
        registry.get_class("heads", "failing_module:Net")
    assert "\n" not in str(error.value)


def test_saved_configuration_is_untrusted_by_default(marker: Path) -> None:
    text = yaml.safe_dump(
        {**yaml.safe_load(make_tiny_experiment().to_yaml()), "head": {"name": EVIL}}
    )
    with pytest.raises(ConfigError, match="--trust-custom-code"):
        load_saved(text, Path("weights"))
    assert not marker.exists()
