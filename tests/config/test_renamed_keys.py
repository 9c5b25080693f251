"""Renamed keys: error messages for users, and loading of files that older versions saved.

The tables of renamed keys are replaced by examples, such as the old key `gather` for
`grad_accum_steps` and `thick` for the `width` of the head `fpn`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from densemtl.config import renamed_keys
from densemtl.config.experiment import load_experiment, parse_saved_experiment
from densemtl.config.input_paths import WEIGHTS_NAME
from densemtl.config.translation import (
    restore_config,
    restore_parameters,
    translate_config,
    translate_fields,
    translate_parameters,
)
from densemtl.create import create_model
from densemtl.engine.checkpoint import LAST_DIR, STATE_NAME
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import SavedWeights, load_weights, save_tensors
from densemtl.errors import ConfigError
from densemtl.hub.upload import save_pretrained
from densemtl.results.results import load_results
from densemtl.runs.predictions_cli import load_experiment_from
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import TINY_CONFIG, make_tiny_experiment

EXAMPLES: dict[str, dict[str, Any]] = {
    "RENAMED_KEYS": {
        "random": "seed",
        "train.gather": "grad_accum_steps",
        "head.fpn.thick": "width",
        "tasks.edge.farthest": "max_distance",
        "metrics.boundary.distance": "max_distance",
        "data.folder.labels.*.start": "first_class_id",
    },
    "RENAMED_VALUES": {
        "head.name": {"feature_pyramid": "fpn"},
        "tasks.name": {"segmentation": "semseg"},
        "tasks.kind": {"border": "edge"},
        "train.amp": {"off": "none", False: "none"},
    },
    "RENAMED_PARAMETERS": {"hard_sharing": {"decoder.ends.": "decoder.heads."}},
    "RENAMED_RESULT_FIELDS": {"total_gain": "delta_m", "tasks.*.main": "primary_metric"},
    "RENAMED_PROGRESS_FIELDS": {"steps_done": "step"},
}


def replace_tables(monkeypatch: pytest.MonkeyPatch, tables: dict[str, dict[str, Any]]) -> None:
    """Replace the entries of tables in place, as some modules import a table by name."""
    for name, entries in tables.items():
        table = getattr(renamed_keys, name)
        for key in list(table):
            monkeypatch.delitem(table, key)
        for key, value in entries.items():
            monkeypatch.setitem(table, key, value)


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_tables(monkeypatch, EXAMPLES)


def old_config(**changes: object) -> dict[str, object]:
    """Return the tiny experiment with old names."""
    train = {**TINY_CONFIG["train"], "gather": 2, "amp": "off"}
    return {
        **TINY_CONFIG,
        "train": train,
        "head": {"name": "feature_pyramid", "thick": 8},
        **changes,
    }


@pytest.mark.usefixtures("examples")
def test_old_names_are_reported_with_new_names_and_other_errors(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    task = {"name": "edge", "farthest": 0.1, "metrics": [{"name": "boundary", "distance": 0.2}]}
    file.write_text(yaml.safe_dump(old_config(tasks=["segmentation", task], random=3, sede=4)))
    with pytest.raises(ConfigError) as caught:
        load_experiment(file, ["train.gather=4", "optim.lr=-1"])
    assert set(str(caught.value).splitlines()) == {
        f"{file}: random: renamed to 'seed'",
        "command line: train.gather: renamed to 'grad_accum_steps'",
        f"{file}: train.amp: 'off' was renamed to 'none'",
        f"{file}: head.name: 'feature_pyramid' was renamed to 'fpn'",
        f"{file}: head.thick: renamed to 'width'",
        f"{file}: tasks.0: 'segmentation' was renamed to 'semseg'",
        f"{file}: tasks.1.farthest: renamed to 'max_distance'",
        f"{file}: tasks.1.metrics.0.distance: renamed to 'max_distance'",
        f"{file}: sede: unknown key, did you mean 'seed'?",
        "command line: optim.lr: Input should be greater than 0, not -1",
    }


@pytest.mark.usefixtures("examples")
def test_create_model_reports_new_name() -> None:
    with pytest.raises(ConfigError, match=r"^head\.thick: renamed to 'width'$"):
        create_model(
            "hard_sharing",
            backbone="test_resnet",
            tasks=["depth"],
            head={"name": "fpn", "thick": 8},
        )


@pytest.mark.usefixtures("examples")
def test_saved_configurations_are_translated() -> None:
    text = yaml.safe_dump(old_config(random=3))
    assert parse_saved_experiment(text, Path("old.yaml")) == make_tiny_experiment(
        "train.grad_accum_steps=2", "seed=3"
    )


@pytest.mark.usefixtures("examples")
def test_nested_and_task_paths_are_translated() -> None:
    values = {
        "data": {
            "name": "folder",
            "labels": {"semseg": {"start": 1}, "edge": {"folder": "x"}},
        },
        "auxiliary_tasks": [{"name": "rim", "kind": "border", "farthest": 0.1}],
        "train": {"amp": False, "gather": 2, "grad_accum_steps": 3},
    }
    translated, renames = translate_config(values)
    assert translated == {
        "data": {
            "name": "folder",
            "labels": {"semseg": {"first_class_id": 1}, "edge": {"folder": "x"}},
        },
        "auxiliary_tasks": [{"name": "rim", "kind": "edge", "max_distance": 0.1}],
        "train": {"amp": "none", "grad_accum_steps": 3},
    }
    assert [rename.path for rename in renames] == [
        *("data.labels.semseg.start", "auxiliary_tasks.0.kind", "auxiliary_tasks.0.farthest"),
        *("train.amp", "train.gather"),
    ]
    assert translate_config(translated) == (translated, [])


@pytest.mark.usefixtures("examples")
def test_restore_config_inverts_translate_config() -> None:
    old = old_config(random=3, tasks=["segmentation", {"name": "edge", "farthest": 0.1}])
    del old["train"]["amp"]
    assert restore_config(translate_config(old)[0]) == old


def test_renaming_does_not_change_config_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_tables(monkeypatch, {"RENAMED_KEYS": {}, "RENAMED_VALUES": {}})
    now = make_tiny_experiment().compute_config_hash()
    replace_tables(monkeypatch, {"RENAMED_KEYS": EXAMPLES["RENAMED_KEYS"]})
    before = make_tiny_experiment().to_semantic_dict()
    before["random"] = before.pop("seed")
    before["train"]["gather"] = before["train"].pop("grad_accum_steps")
    before["head"]["thick"] = before["head"].pop("width")
    text = json.dumps(before, sort_keys=True)
    assert (
        make_tiny_experiment().compute_config_hash()
        == hashlib.sha256(text.encode()).hexdigest()[:12]
        != now
    )


def test_other_names_are_not_translated() -> None:
    values = make_tiny_experiment(
        "tasks=[semseg, {name: edge, metrics: [calibration_error]}]"
    ).model_dump(mode="json")
    assert translate_config(values) == (values, [])
    assert translate_config(restore_config(values))[0] == values
    assert translate_fields({"a": [1, {"b": 2}]}, {}) == {"a": [1, {"b": 2}]}
    assert translate_parameters({"decoder.heads.x": 1}, "mtan") == {"decoder.heads.x": 1}


def age(folder: Path) -> None:
    """Rewrite the files of a run with the old names of the examples."""

    def old(text: str) -> str:
        return text.replace("grad_accum_steps:", "gather:").replace("  width:", "  thick:")

    config = folder / "config.yaml"
    config.write_text(old(config.read_text()))
    for file in (folder / "best.safetensors", folder / LAST_DIR / WEIGHTS_NAME):
        weights = load_weights(file)
        tensors = {
            k.replace("decoder.heads.", "decoder.ends."): v for k, v in weights.tensors.items()
        }
        assert tensors.keys() != weights.tensors.keys()
        save_tensors(file, SavedWeights(tensors, old(weights.config_yaml)))
    state = torch.load(folder / LAST_DIR / STATE_NAME, weights_only=True)
    state["record"]["steps_done"] = state["record"].pop("step")
    if state["ema"]:
        state["ema"] = {
            k.replace("decoder.heads.", "decoder.ends."): v for k, v in state["ema"].items()
        }
    torch.save(state, folder / LAST_DIR / STATE_NAME)
    results = json.loads((folder / "results.json").read_text())
    results["total_gain"] = results.pop("delta_m")
    for task in results["tasks"].values():
        task["main"] = task.pop("primary_metric")
    (folder / "results.json").write_text(json.dumps(results))


def test_old_run_is_loaded_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make_tiny_experiment("train.ema_decay=0.9")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_experiment(experiment, whole, "cpu")
    train_experiment(experiment, parts, "cpu", max_steps=5)
    age(parts)
    with pytest.raises(ConfigError, match="gather: unknown key"):
        train_experiment(experiment, parts, "cpu")
    replace_tables(monkeypatch, EXAMPLES)
    old = load_trained_model(parts, ["loader.num_workers=0"], "cpu")
    assert old.experiment == experiment
    assert load_experiment_from(parts, []) == experiment
    assert load_results(parts).tasks["depth"].primary_metric == "rmse"
    train_experiment(experiment, parts, "cpu")
    ours, theirs = (load_weights(each / LAST_DIR / WEIGHTS_NAME).tensors for each in (whole, parts))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_old_weights_are_published_with_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results identify weights by a hash, which is computed from old names."""
    train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path / "run", "cpu")
    table = {"decoder.heads.": "decoder.ends."}  # the names in the file become old names
    monkeypatch.setitem(renamed_keys.RENAMED_PARAMETERS, "hard_sharing", table)
    tensors = load_weights(tmp_path / "run" / "best.safetensors").tensors
    assert any(name.startswith("decoder.ends.") for name in tensors)
    assert not any(
        name.startswith("decoder.ends.") for name in restore_parameters(tensors, "hard_sharing")
    )
    folder = save_pretrained(tmp_path / "run", tmp_path / "out")
    assert load_results(folder).weights_hash == load_results(tmp_path / "run").weights_hash
