"""Examples: the commands of the README run, and the components behave as documented."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from densemtl import Predictor
from densemtl.config.experiment import load_experiment
from densemtl.engine.loading import load_trained_model
from densemtl.engine.run_log import read_log
from densemtl.factory import build_balancer, build_dataset, build_tasks
from densemtl.io.image_inputs import to_rgb_array
from densemtl.runs.train_run import train_experiment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SMALL = [
    "backbone={name: test_resnet, pretrained: false}",
    "input.size=[32, 40]",
    "loader={batch_size: 2, eval_batch_size: 2, num_workers: 0}",
    "train={epochs: 1, num_vis_images: 1, eval_every: 1, amp: none}",
    "schedule.warmup_epochs=0",
]
ROOMS = ["data={size: [32, 40], train_images: 4, val_images: 2}"]
DATA = {"custom_dataset": ["data={size: [32, 40], num_images: 4}"]}
NAMES = sorted(file.stem for file in EXAMPLES.glob("*.yaml"))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_every_example_is_listed_in_the_readme() -> None:
    assert NAMES == ["custom_architecture", "custom_balancing", "custom_dataset", "custom_task"]
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"[{name}.py]({name}.py)" in readme
        assert (EXAMPLES / f"{name}.py").exists()


@pytest.mark.parametrize("name", NAMES)
def test_example_trains_and_predicts(name: str, tmp_path: Path) -> None:
    overrides = [*SMALL, *DATA.get(name, ROOMS)]
    experiment = load_experiment(EXAMPLES / f"{name}.yaml", overrides)
    results = train_experiment(experiment, tmp_path, "cpu")
    assert results.complete
    assert set(results.tasks) == set(experiment.list_task_names())
    predictor = Predictor.from_run(
        tmp_path, device="cpu", trust_custom_code=True, flip=True, scales=(1, 2)
    )
    maps = predictor(np.zeros((20, 30, 3), np.uint8))
    assert all(np.isfinite(prediction).all() for prediction in maps.values())
    if name == "custom_task":
        assert (maps["depth"] > 0).all()
    if name == "custom_architecture":
        records = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "sharing"]
        assert any("choice/depth<-level 0" in line for line in records)
        loaded = load_trained_model(tmp_path, device="cpu", trust_custom_code=True)
        assert loaded.experiment.decoder.options == {"initial_gate": 0.8}


def test_log_depth_loss_and_decoding_match_manual_values() -> None:
    (_, depth) = build_tasks(load_experiment(EXAMPLES / "custom_task.yaml"))
    target = torch.tensor([2.0, 4.0, float("nan")]).view(1, 1, 1, 3)
    exact = torch.tensor([2.0, 4.0, 1.0]).log().view(1, 1, 1, 3)
    assert depth.compute_loss(exact, target).item() == pytest.approx(0, abs=1e-6)
    assert depth.compute_loss(exact + 0.5, target).item() == pytest.approx(0.5)
    near = exact - torch.tensor(2.0).log()
    torch.testing.assert_close(
        depth.decode(depth.inverse_transform_logits(near, 2.0, False)), exact.exp()
    )


def test_disc_pixels_are_those_closest_to_the_center() -> None:
    dataset = build_dataset(load_experiment(EXAMPLES / "custom_dataset.yaml"), "val")
    sample = dataset[3]
    inside = sample.targets["semseg"] > 0
    distance = sample.targets["center"]
    assert distance[inside].max() <= distance[~inside].min()
    np.testing.assert_array_equal(sample.image, dataset[3].image)


def test_running_means_match_manual_values() -> None:
    experiment = load_experiment(EXAMPLES / "custom_balancing.yaml", ["tasks=[semseg, depth]"])
    balancer = build_balancer(experiment, build_tasks(experiment))
    losses = torch.tensor([4.0, 0.0])
    assert balancer.weights(losses)[0].item() == pytest.approx(1 / 4)
    balancer.weights(torch.tensor([8.0, 0.5]))
    assert balancer.means.tolist() == pytest.approx([0.95 * 4 + 0.05 * 8, 0.5])
    balancer.weights(losses)
    assert balancer.means[1].item() == pytest.approx(0.5)


def test_command_of_the_readme_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}
    command = [sys.executable, "tools/train.py", "examples/custom_balancing.yaml", "--print-config"]
    completed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert "custom_balancing:RunningMean" in completed.stdout
    assert importlib.import_module("custom_balancing").RunningMean.__doc__


def test_public_photos_are_found_in_installed_packages(tmp_path: Path) -> None:
    files = importlib.import_module("public_photos").write_photos(tmp_path / "photos")
    assert [file.stem for file in files] == ["astronaut", "coffee", "chelsea", "grace_hopper"]
    for file in files:
        assert to_rgb_array(file).std() > 30  # a photograph, not an empty image
