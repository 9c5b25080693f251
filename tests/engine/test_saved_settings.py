"""A weights file controls no folders, URLs and processes of the machine that loads it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import densemtl
from densemtl.data.datasets import shard_index
from densemtl.data.datasets.shard_index import ShardStore
from densemtl.data.datasets.shards import write_shards
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import save_weights
from densemtl.errors import DataError, UserError
from densemtl.factory import build_dataset, build_model, build_splits, build_tasks
from densemtl.runs.predictions_cli import load_experiment_from
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment

URL = "https://example.invalid/shards"
OFFERS = {"semseg": {"class_names": ["a", "b"]}, "depth": {}}


def write_run(folder: Path, change: dict[str, Any]) -> Path:
    experiment = make_tiny_experiment("tasks=[depth]")
    model = build_model(experiment, build_tasks(experiment), pretrained=False)
    folder.mkdir(exist_ok=True)
    config = yaml.safe_dump({**yaml.safe_load(experiment.to_yaml()), **change})
    save_weights(folder / "best.safetensors", model, config)
    (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record downloads instead of starting them."""
    fetched: list[str] = []
    monkeypatch.setattr(ShardStore, "_download", lambda self, name, file: fetched.append(name))
    return fetched


def test_folders_and_processes_are_not_those_of_the_file(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    loader = {"num_workers": 500, "cache": "disk", "cache_dir": str(canary)}
    run = write_run(tmp_path / "run", {"loader": loader, "trackers": ["tensorboard"]})
    for load in (load_trained_model(run).experiment, load_experiment_from(run, [])):
        assert load.loader.num_workers == 2
        assert load.loader.cache == "none"
        assert load.loader.cache_dir != canary
        assert len(build_dataset(load, "val")[0].targets) == 1
    assert sorted(file.name for file in run.iterdir()) == ["best.safetensors", "config.yaml"]
    assert not canary.exists()
    assert write_run(run, {"loader": {"num_workers": 0}}) == run
    assert load_trained_model(run).experiment.loader.num_workers == 0


def test_overrides_of_the_user_may_set_everything(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {})
    overrides = ["loader.num_workers=5", "loader.cache=disk", f"loader.cache_dir={tmp_path}"]
    experiment = load_trained_model(run, overrides).experiment
    assert (experiment.loader.num_workers, experiment.loader.cache) == (5, "disk")
    assert experiment.loader.cache_dir == tmp_path


LOADERS: list[Callable[[Path], object]] = [
    load_trained_model,
    densemtl.Predictor.from_run,
    densemtl.from_pretrained,
]


@pytest.mark.parametrize("root", [URL, "file:///etc", "gs://bucket/x", "pipe://touch x"])
def test_urls_are_not_read_unless_the_user_repeats_them(
    root: str, tmp_path: Path, no_network: list[str]
) -> None:
    data = {"name": "shards", "root": root, "cache_dir": str(tmp_path / "canary")}
    old = write_run(tmp_path / "old", {"data": data})
    for load in (*LOADERS, lambda folder: load_experiment_from(folder, [])):
        with pytest.raises(DataError, match=rf"names the URL {root}; pass data.root=URL") as error:
            load(old)
        assert "\n" not in str(error.value)
    new = write_run(tmp_path / "new", {"data": {**data, "offers": OFFERS}})
    for load in LOADERS:
        load(new)
    with pytest.raises(DataError, match=r"pass data\.root=URL"):
        build_dataset(load_trained_model(new).experiment, "val")
    assert not no_network
    assert not (tmp_path / "canary").exists()
    with pytest.raises(UserError):  # the download is replaced, so that there is no index
        build_dataset(load_trained_model(new, [f"data.root={URL}"]).experiment, "val")
    assert no_network == ["shards.json"]


def test_trained_model_is_loaded_without_the_index(tmp_path: Path) -> None:
    plain = make_tiny_experiment("tasks=[semseg, depth]")
    splits = build_splits(plain)
    offers = {"semseg": {"class_names": [f"c{index}" for index in range(15)]}, "depth": {}}
    write_shards([splits.train, splits.val], offers, tmp_path / "shards", 8, jpeg=False)
    experiment = make_tiny_experiment("train.epochs=1", "trackers=[]").model_copy(
        update={"data": plain.data.__class__(name="shards", root=str(tmp_path / "shards"))}
    )
    train_experiment(experiment, tmp_path / "run", "cpu", max_steps=1)
    (tmp_path / "shards" / "shards.json").unlink()
    assert load_trained_model(tmp_path / "run").tasks[0].channels == 15


def test_stored_options_do_not_change_the_hash() -> None:
    first = make_tiny_experiment()
    options = {**first.data.options, "offers": OFFERS}
    second = first.model_copy(update={"data": first.data.__class__(name="synthetic", **options)})
    assert first.compute_config_hash() == second.compute_config_hash()


def test_stored_options_cannot_name_custom_classes(tmp_path: Path) -> None:
    offers = {"depth": {"kind": "os:system"}}
    data = {"name": "shards", "root": str(tmp_path), "offers": offers}
    with pytest.raises(UserError, match=r"os:system.*--trust-custom-code"):
        load_trained_model(write_run(tmp_path / "run", {"data": data}))


def test_size_of_the_index_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shards.json").write_text(json.dumps({"offers": OFFERS, "splits": {}}))
    assert ShardStore(str(tmp_path), tmp_path, 1).read_index().offers == OFFERS
    os.truncate(tmp_path / "shards.json", 5 * 10**9)
    with pytest.raises(DataError, match=r"shards\.json: needs 4,768 MB"):
        ShardStore(str(tmp_path), tmp_path, 1).read_index()
    monkeypatch.setattr(shard_index, "MAX_TEXT_BYTES", 2**20)
    pytest.importorskip("webdataset", reason='needs pip install "densemtl[shards]"')
    store = ShardStore(f"file://{tmp_path}", tmp_path / "cache", 1)
    with pytest.raises(DataError, match="larger than 1 MB"):
        store.read_index()
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


@pytest.mark.parametrize("target", ["/dev/zero", "fifo"])
def test_index_must_be_a_file(target: str, tmp_path: Path) -> None:
    file = tmp_path / "shards.json"
    os.mkfifo(file) if target == "fifo" else file.symlink_to(target)
    with pytest.raises(DataError, match=re.escape(str(file))):
        ShardStore(str(tmp_path), tmp_path, 1).read_index()
