"""Real trackers without a network, and runs whose results do not depend on trackers."""

from __future__ import annotations

import importlib.util
import json
import sys
from math import nan
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from densemtl.distributed import collectives
from densemtl.engine.run_log import open_log
from densemtl.engine.weights_file import load_weights
from densemtl.errors import ConfigError
from densemtl.runs.train_run import train_experiment
from densemtl.trackers.base import RunInfo, Tracker
from densemtl.trackers.mlflow import MLflow
from tests.helpers.experiments import make_tiny_experiment


class Faulty(Tracker):
    """Tracker that starts and then has no network."""

    def start(self, run_info: RunInfo) -> None:
        (run_info.folder / "started.txt").write_text(
            f"{run_info.title} {run_info.config['seed']} {run_info.step}"
        )

    def log_scalars(self, step, values) -> None:
        raise OSError("[/network] is down")

    log_image = log_scalars

    def finish(self, failed: bool) -> None:
        raise AssertionError("a silent tracker is not called again")


@pytest.fixture
def custom_tracker(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("my_tracker")
    module.Faulty = Faulty
    monkeypatch.setitem(sys.modules, "my_tracker", module)
    return "trackers=['my_tracker:Faulty']"


def load_last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "last" / "model.safetensors").tensors


def load_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    names = board.Tags()["scalars"]
    return {name: [(each.step, each.value) for each in board.Scalars(name)] for name in names}


def test_tensorboard_is_default_and_equals_log(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment(), tmp_path, "cpu")
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = [(line["step"], line["depth"]) for line in lines if line["kind"] == "train"]
    shown = load_events(tmp_path)["train/depth"]
    assert [step for step, _ in shown] == [step for step, _ in logged] != []
    assert [value for _, value in shown] == pytest.approx([value for _, value in logged])


def test_failing_custom_tracker_does_not_change_run(
    tmp_path: Path, custom_tracker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train_experiment(make_tiny_experiment(custom_tracker), tmp_path / "faulty", "cpu")
    output = capsys.readouterr().out
    train_experiment(make_tiny_experiment("trackers=[]"), tmp_path / "quiet", "cpu")
    line = "tracker Faulty stopped, the run continues without it: OSError: [/network] is down"
    assert output.count("Faulty") == 1
    assert line in output
    assert (tmp_path / "faulty/started.txt").read_text() == "hard_sharing semseg+depth 0 0"
    assert not (tmp_path / "quiet/tensorboard").exists()
    ours, theirs = load_last_weights(tmp_path / "faulty"), load_last_weights(tmp_path / "quiet")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_run_can_resume_with_other_trackers(tmp_path: Path, custom_tracker: str) -> None:
    train_experiment(make_tiny_experiment(), tmp_path, "cpu", max_steps=3)
    assert train_experiment(make_tiny_experiment(custom_tracker), tmp_path, "cpu").complete
    assert (tmp_path / "started.txt").read_text().endswith(" 3")
    assert (
        make_tiny_experiment(custom_tracker).compute_config_hash()
        == make_tiny_experiment().compute_config_hash()
    )


def test_only_main_process_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "get_rank", lambda: 1)
    with open_log(RunInfo(tmp_path, "tiny", {"seed": 0}), [Faulty()]) as log:
        log.log_scalars(1, "train", {"depth": 1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_library_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("densemtl.trackers.base.find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=rf'trackers: {name} is not installed: pip install "densemtl\[{name}\]"'
    ):
        train_experiment(make_tiny_experiment(f"trackers=[{name}]"), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[wand]", "trackers.0.name: no 'wand' in trackers: did you mean 'wandb'?"),
        ("[{name: wandb, mod: offline}]", "trackers.0.mod: unknown key, did you mean 'mode'?"),
        ("[tensorboard, {name: wandb, mode: of}]", "trackers.1.mode: Input should be 'online'"),
    ],
)
def test_invalid_options_are_rejected(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_tiny_experiment(f"trackers={given}")
    assert message in str(caught.value)


needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason='wandb: pip install "densemtl[wandb]"'
)
needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason='mlflow: pip install "densemtl[mlflow]"'
)


@needs_wandb
def test_wandb_offline_resumes_same_run(tmp_path: Path) -> None:
    offline = "trackers=[{name: wandb, mode: offline, project: rooms}]"
    train_experiment(make_tiny_experiment(offline), tmp_path / "run", "cpu", max_steps=3)
    train_experiment(make_tiny_experiment(offline), tmp_path / "run", "cpu")
    train_experiment(make_tiny_experiment("trackers=[]"), tmp_path / "quiet", "cpu")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    name = (tmp_path / "run" / "wandb.id").read_text()
    assert [file.name for file in files] == [f"run-{name}.wandb"] * 2
    for text in (b"rooms", b"val/depth/rmse", b"panels", b"optim"):
        assert any(text in file.read_bytes() for file in files), text
    ours, theirs = load_last_weights(tmp_path / "run"), load_last_weights(tmp_path / "quiet")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@needs_mlflow
def test_mlflow_resumes_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)  # MLflow writes its artifacts there.
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    for step in (0, 3):
        tracker = MLflow(tracking_uri=uri, experiment_name="rooms")
        tracker.start(RunInfo(tmp_path, "tiny", {"optim": {"lr": 0.001}}, step))
        tracker.log_scalars(step + 1, {"sharing/stage 1/depth<-semseg": 0.5, "val/depth/rmse": nan})
        tracker.log_image(step + 1, "panels", np.zeros((4, 5, 3), np.uint8))
        tracker.finish(failed=step == 0)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("rooms")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == (tmp_path / "mlflow.id").read_text()
    assert found.info.status == "FINISHED"
    assert found.data.params["optim.lr"] == "0.001"
    history = client.get_metric_history(found.info.run_id, "sharing/stage 1/depth_-semseg")
    assert [(each.step, each.value) for each in history] == [(1, 0.5), (4, 0.5)]
    assert len(list((tmp_path / "mlruns").rglob("panels*.png"))) == 2
