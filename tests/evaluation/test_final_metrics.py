"""The boundary measure of a run's best weights: once, at the end, whatever happens in between."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from densemtl.engine import final_metrics
from densemtl.engine.checkpoint import load_weights
from densemtl.engine.loading import load_trained_model
from densemtl.engine.run_log import read_log
from densemtl.evaluation.evaluate import TaskMetrics
from densemtl.evaluation.final_metrics import FinalTaskMetrics
from densemtl.evaluation.prediction_files import to_decoded_batch
from densemtl.factory import build_dataset, build_tasks
from densemtl.inference.predictor import Predictor
from densemtl.results.results import RESULTS_FILE, Results, load_results
from densemtl.runs.evaluate_run import evaluate_model
from densemtl.runs.train_run import train_experiment
from densemtl.types import IGNORE_INDEX
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.protocols import boundary

pytestmark = pytest.mark.usefixtures("no_figures")

EDGE = "tasks=[{name: edge, max_distance: 0.03}]"
"""On pictures of 32x40 pixels 1.5 of them."""

BOTH = EDGE.replace("[", "[semseg, ", 1)


def go_on(folder: Path, *overrides: str, max_steps: int | None = None) -> Results:
    return train_experiment(make_tiny_experiment(EDGE, *overrides), folder, "cpu", max_steps)


def refuse(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with large steps, whose last weights are not the best ones."""
    folder = tmp_path_factory.mktemp("finished")
    results = go_on(folder, "optim.lr=0.02", "seed=3")
    assert results.step == 4
    return folder


def test_a_run_reports_what_is_published(finished: Path) -> None:
    edge = load_results(finished).tasks["edge"]
    assert (edge.primary_metric, edge.selection_metric) == ("odsF", "pixel_maxF")
    assert set(edge.metrics) == {"odsF", "oisF", "AP", "pixel_maxF", "balanced_nll", "images"}
    assert 0 < edge.value <= edge.metrics["oisF"] < 100
    assert edge.metrics["images"] == 4


def test_validations_are_spared(finished: Path) -> None:
    lines = [line for line in read_log(finished / "log.jsonl") if line["kind"] == "val"]
    assert len(lines) == 2
    assert {key for line in lines for key in line if "edge" in key} == {
        *("edge/pixel_maxF", "edge/balanced_nll", "edge/images")
    }


def test_it_is_that_of_the_best_weights(finished: Path) -> None:
    """By the metric itself, one image after the other, of what the saved weights predict."""
    metric, loaded = (
        boundary("survey", max_distance=0.03),
        load_trained_model(finished, device="cpu"),
    )
    dataset, predictor = build_dataset(loaded.experiment, "val"), Predictor.from_trained(loaded)
    for index in range(len(dataset)):
        sample = dataset[index]
        decoded = to_decoded_batch(loaded.tasks[0], predictor(sample.image)["edge"])
        metric.update(decoded, torch.as_tensor(sample.targets["edge"])[None])
    found = load_results(finished).tasks["edge"].metrics
    assert metric.compute_dict() == pytest.approx(
        {name: found[name] for name in metric.compute_dict()}
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_says_the_same_with_any_number_of_processes(
    finished: Path, workers: int
) -> None:
    results = load_results(finished)
    again = evaluate_model(
        load_trained_model(finished, [f"loader.num_workers={workers}"], "cpu"), "val"
    )
    assert again.weights_hash == results.weights_hash
    assert again.tasks["edge"].metrics == results.tasks["edge"].metrics


def test_killed_before_it_was_done_it_is_done_by_the_next_call_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(final_metrics, "evaluate_with_final_metrics", refuse)
        with pytest.raises(KeyboardInterrupt):
            go_on(tmp_path)
    assert not (tmp_path / RESULTS_FILE).exists()
    trained = load_weights(tmp_path / "last" / "model.safetensors")
    monkeypatch.setattr("densemtl.engine.trainer._train_epoch", refuse)
    monkeypatch.setattr("densemtl.engine.trainer._validate", refuse)
    completed = go_on(tmp_path)
    assert completed.complete
    assert math.isfinite(completed.tasks["edge"].value)
    now = load_weights(tmp_path / "last" / "model.safetensors")
    assert now.config_yaml == trained.config_yaml
    assert all(torch.equal(now.tensors[name], each) for name, each in trained.tensors.items())
    monkeypatch.setattr(final_metrics, "evaluate_with_final_metrics", refuse)
    assert go_on(tmp_path).tasks == completed.tasks


def test_stopped_and_gone_on_equals_never_stopped(tmp_path: Path) -> None:
    """What is scored at a stop neither changes what follows nor stands for other weights."""
    first = go_on(tmp_path / "parts", max_steps=3)
    assert math.isfinite(first.tasks["edge"].value)
    parts, whole = go_on(tmp_path / "parts"), go_on(tmp_path / "whole")
    assert parts.tasks == whole.tasks
    assert parts.weights_hash == whole.weights_hash
    ours, theirs = (
        load_weights(tmp_path / name / "last" / "model.safetensors").tensors
        for name in ("parts", "whole")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_delta_m_reads_it_of_both_sides(tmp_path: Path) -> None:
    results = go_on(tmp_path / "runs" / "both", BOTH, "baselines=auto", "train.epochs=1")
    edge, baseline = results.tasks["edge"], results.baselines["edge"]
    single = load_results(Path(baseline.file)).tasks["edge"]
    assert baseline.value == single.metrics["odsF"]
    assert edge.delta == pytest.approx(100 * (edge.value / baseline.value - 1))
    assert results.delta_m is not None


def test_a_run_without_such_a_task_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_metrics, "evaluate_with_final_metrics", refuse)
    results = train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu")
    assert {task: result.selection_metric for task, result in results.tasks.items()} == {
        task: result.primary_metric for task, result in results.tasks.items()
    }


@pytest.mark.parametrize("protocol", ["survey", "modern"])
def test_images_without_label_cost_nothing_and_change_nothing(make_task, protocol, rng) -> None:
    task = make_task("edge", max_distance=0.1)
    prediction = torch.as_tensor(rng.random((4, 12, 15)), dtype=torch.float32)
    target = torch.as_tensor((rng.random((4, 12, 15)) < 0.2).astype(np.uint8))
    target[1] = IGNORE_INDEX
    counted: list[int] = []
    with FinalTaskMetrics([task], protocol) as scorer:
        (work,) = scorer._pools["edge"]
        count = work._function
        work._function = lambda pair: (counted.append(len(pair)), count(pair))[1]
        scorer.update(task, prediction, target)
        found = scorer.compute()["edge"]
    metric = boundary(protocol, max_distance=0.1)
    metric.update(prediction[[0, 2, 3]], target[[0, 2, 3]])
    quick = TaskMetrics([task], protocol)
    quick.update(task, prediction, target)
    assert found == {**metric.compute_dict(), **quick.compute()["edge"]}
    assert len(counted) == found["images"] == 3


def test_nothing_to_score_is_nan() -> None:
    (task,) = build_tasks(make_tiny_experiment(EDGE))
    with FinalTaskMetrics([task], "survey") as scorer:
        empty = torch.full((2, 8, 9), IGNORE_INDEX, dtype=torch.uint8)
        scorer.update(task, torch.rand(2, 8, 9), empty)
        scores = scorer.compute()["edge"]
    assert all(math.isnan(scores[name]) for name in ("odsF", "oisF", "AP", "pixel_maxF"))
    assert scores["images"] == 0
