"""Final metrics, which are computed once for the best weights, also after interruptions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from densemtl.engine.loading import load_trained_model
from densemtl.engine.run_log import read_log
from densemtl.engine.weights_file import load_weights
from densemtl.evaluation import final_metrics
from densemtl.evaluation.final_metrics import FinalTaskMetrics
from densemtl.evaluation.prediction_files import to_decoded_batch
from densemtl.evaluation.task_metrics import TaskMetrics
from densemtl.factory import build_dataset, build_tasks
from densemtl.inference.predictor import Predictor
from densemtl.results.results import RESULTS_FILE, Results, load_results
from densemtl.runs.evaluate_run import evaluate_model
from densemtl.runs.train_run import train_experiment
from densemtl.types import IGNORE_INDEX
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.protocols import boundary

EDGE = "tasks=[{name: edge, max_distance: 0.03}]"
"""A distance of 1.5 pixels in images of 32x40 pixels."""

BOTH = EDGE.replace("[", "[semseg, ", 1)


def train(folder: Path, *overrides: str, max_steps: int | None = None) -> Results:
    """Start or resume a run with the task edge."""
    return train_experiment(make_tiny_experiment(EDGE, *overrides), folder, "cpu", max_steps)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished run with a large learning rate, whose last weights are not the best ones."""
    folder = tmp_path_factory.mktemp("finished")
    results = train(folder, "optim.lr=0.02", "seed=3")
    assert results.step == 4
    return folder


def test_results_contain_boundary_and_pixel_metrics(finished: Path) -> None:
    edge = load_results(finished).tasks["edge"]
    assert (edge.primary_metric, edge.selection_metric) == ("odsF", "pixel_maxF")
    assert set(edge.metrics) == {
        *("odsF", "oisF", "AP", "pixel_maxF", "balanced_nll", "images", "occurring_ids")
    }
    assert 0 < edge.value <= edge.metrics["oisF"] < 100
    assert edge.metrics["images"] == 4


def test_validations_during_training_have_no_final_metrics(finished: Path) -> None:
    lines = [line for line in read_log(finished / "log.jsonl") if line["kind"] == "val"]
    assert len(lines) == 2
    assert {key for line in lines for key in line if "edge" in key} == {
        *("edge/pixel_maxF", "edge/balanced_nll", "edge/images", "edge/occurring_ids")
    }


def test_final_metrics_are_those_of_the_best_weights(finished: Path) -> None:
    """Compare with the metric, updated image by image with predictions of the saved weights."""
    metric, loaded = (
        boundary("survey", max_distance=0.03),
        load_trained_model(finished, device="cpu"),
    )
    dataset, predictor = build_dataset(loaded.experiment, "val"), Predictor.from_trained(loaded)
    for index in range(len(dataset)):
        sample = dataset[index]
        decoded = to_decoded_batch(loaded.tasks[0], predictor(sample.image)["edge"])
        metric.update(decoded, torch.as_tensor(sample.targets["edge"])[None])
    metrics = load_results(finished).tasks["edge"].metrics
    assert metric.compute_dict() == pytest.approx(
        {name: metrics[name] for name in metric.compute_dict()}
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_number_of_workers_does_not_change_scores(finished: Path, workers: int) -> None:
    results = load_results(finished)
    evaluated = evaluate_model(
        load_trained_model(finished, [f"loader.num_workers={workers}"], "cpu"), "val"
    )
    assert evaluated.weights_hash == results.weights_hash
    assert evaluated.tasks["edge"].metrics == results.tasks["edge"].metrics


def test_interrupted_final_evaluation_is_completed_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(final_metrics, "evaluate_with_final_metrics", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert not (tmp_path / RESULTS_FILE).exists()
    before = load_weights(tmp_path / "last" / "model.safetensors")
    monkeypatch.setattr("densemtl.engine.trainer._train_until", interrupt)
    monkeypatch.setattr("densemtl.engine.trainer.validate", interrupt)
    completed = train(tmp_path)
    assert completed.complete
    assert math.isfinite(completed.tasks["edge"].value)
    after = load_weights(tmp_path / "last" / "model.safetensors")
    assert after.config_yaml == before.config_yaml
    assert all(torch.equal(after.tensors[name], each) for name, each in before.tensors.items())
    monkeypatch.setattr(final_metrics, "evaluate_with_final_metrics", interrupt)
    assert train(tmp_path).tasks == completed.tasks


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    """The evaluation at a stop changes neither the training nor the final scores."""
    first = train(tmp_path / "resumed", max_steps=3)
    assert math.isfinite(first.tasks["edge"].value)
    resumed, uninterrupted = train(tmp_path / "resumed"), train(tmp_path / "uninterrupted")
    assert resumed.tasks == uninterrupted.tasks
    assert resumed.weights_hash == uninterrupted.weights_hash
    tensors, expected = (
        load_weights(tmp_path / name / "last" / "model.safetensors").tensors
        for name in ("resumed", "uninterrupted")
    )
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)


def test_delta_m_compares_final_metrics(tmp_path: Path) -> None:
    results = train(tmp_path / "runs" / "both", BOTH, "baselines=auto", "train.epochs=1")
    edge, baseline = results.tasks["edge"], results.baselines["edge"]
    single = load_results(Path(baseline.file)).tasks["edge"]
    assert baseline.value == single.metrics["odsF"]
    assert edge.delta == pytest.approx(100 * (edge.value / baseline.value - 1))
    assert results.delta_m is not None


def test_runs_without_final_metrics_skip_the_final_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_metrics, "evaluate_with_final_metrics", interrupt)
    results = train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu")
    assert {task: result.selection_metric for task, result in results.tasks.items()} == {
        task: result.primary_metric for task, result in results.tasks.items()
    }


@pytest.mark.parametrize("protocol", ["survey", "modern"])
def test_images_without_label_are_skipped(make_task, protocol, rng) -> None:
    task = make_task("edge", max_distance=0.1)
    prediction = torch.as_tensor(rng.random((4, 12, 15)), dtype=torch.float32)
    target = torch.as_tensor((rng.random((4, 12, 15)) < 0.2).astype(np.uint8))
    target[1] = IGNORE_INDEX
    counted: list[int] = []
    with FinalTaskMetrics([task], protocol) as metrics:
        (pool,) = metrics._pools["edge", ""]
        count = pool._function
        pool._function = lambda pair: (counted.append(len(pair)), count(pair))[1]
        metrics.update(task, prediction, target)
        scores = metrics.compute()["edge"]
    metric = boundary(protocol, max_distance=0.1)
    metric.update(prediction[[0, 2, 3]], target[[0, 2, 3]])
    quick = TaskMetrics([task], protocol)
    quick.update(task, prediction, target)
    assert scores == {**metric.compute_dict(), **quick.compute()["edge"]}
    assert len(counted) == scores["images"] == 3


def test_scores_without_valid_pixels_are_nan() -> None:
    (task,) = build_tasks(make_tiny_experiment(EDGE))
    with FinalTaskMetrics([task], "survey") as metrics:
        empty = torch.full((2, 8, 9), IGNORE_INDEX, dtype=torch.uint8)
        metrics.update(task, torch.rand(2, 8, 9), empty)
        scores = metrics.compute()["edge"]
    assert all(math.isnan(scores[name]) for name in ("odsF", "oisF", "AP", "pixel_maxF"))
    assert scores["images"] == 0
