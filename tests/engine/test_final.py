"""The boundary measure of a run's best weights: once, at the end, whatever happens in between."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import tiny

from densemtl.build import build_dataset, build_tasks
from densemtl.engine import final
from densemtl.engine.checkpoint import load_weights
from densemtl.engine.evaluate import Scorer
from densemtl.engine.final import FinalScorer
from densemtl.engine.log import read_log
from densemtl.inference.predictor import Predictor
from densemtl.load import load
from densemtl.metrics.boundary.metric import Boundary
from densemtl.predictions.files import to_decoded
from densemtl.results import RESULTS, Results, load_results
from densemtl.run import run
from densemtl.score import score
from densemtl.types import VOID

pytestmark = pytest.mark.usefixtures("no_figures")

EDGE = "tasks=[{name: edge, max_distance: 0.03}]"
"""On pictures of 32x40 pixels 1.5 of them."""

BOTH = EDGE.replace("[", "[semseg, ", 1)


def go_on(folder: Path, *overrides: str, max_steps: int | None = None) -> Results:
    return run(tiny(EDGE, *overrides), folder, "cpu", max_steps)


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
    assert (edge.primary, edge.selection) == ("odsF", "pixel_maxF")
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
    metric, loaded = Boundary("survey", max_distance=0.03), load(finished, device="cpu")
    dataset, predictor = build_dataset(loaded.experiment, "val"), Predictor.of(loaded)
    for index in range(len(dataset)):
        sample = dataset[index]
        decoded = to_decoded(loaded.tasks[0], predictor(sample.image)["edge"])
        metric.update(decoded, torch.as_tensor(sample.targets["edge"])[None])
    found = load_results(finished).tasks["edge"].metrics
    assert metric.scores() == pytest.approx({name: found[name] for name in metric.scores()})


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_says_the_same_with_any_number_of_processes(
    finished: Path, workers: int
) -> None:
    results = load_results(finished)
    again = score(load(finished, [f"loader.workers={workers}"], "cpu"), "val")
    assert again.weights == results.weights
    assert again.tasks["edge"].metrics == results.tasks["edge"].metrics


def test_killed_before_it_was_done_it_is_done_by_the_next_call_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(final, "evaluate_fully", refuse)
        with pytest.raises(KeyboardInterrupt):
            go_on(tmp_path)
    assert not (tmp_path / RESULTS).exists()
    trained = load_weights(tmp_path / "last" / "model.safetensors")
    monkeypatch.setattr("densemtl.engine.train._train_epoch", refuse)
    monkeypatch.setattr("densemtl.engine.train._validate", refuse)
    completed = go_on(tmp_path)
    assert completed.complete
    assert math.isfinite(completed.tasks["edge"].value)
    now = load_weights(tmp_path / "last" / "model.safetensors")
    assert now.config == trained.config
    assert all(torch.equal(now.tensors[name], each) for name, each in trained.tensors.items())
    monkeypatch.setattr(final, "evaluate_fully", refuse)
    assert go_on(tmp_path).tasks == completed.tasks


def test_stopped_and_gone_on_equals_never_stopped(tmp_path: Path) -> None:
    """What is scored at a stop neither changes what follows nor stands for other weights."""
    first = go_on(tmp_path / "parts", max_steps=3)
    assert math.isfinite(first.tasks["edge"].value)
    parts, whole = go_on(tmp_path / "parts"), go_on(tmp_path / "whole")
    assert parts.tasks == whole.tasks
    assert parts.weights == whole.weights
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
    monkeypatch.setattr(final, "evaluate_fully", refuse)
    results = run(tiny("train.epochs=1"), tmp_path, "cpu")
    assert {task: result.selection for task, result in results.tasks.items()} == {
        task: result.primary for task, result in results.tasks.items()
    }


@pytest.mark.parametrize("protocol", ["survey", "modern"])
def test_images_without_label_cost_nothing_and_change_nothing(make_task, protocol, rng) -> None:
    task = make_task("edge", max_distance=0.1)
    prediction = torch.as_tensor(rng.random((4, 12, 15)), dtype=torch.float32)
    target = torch.as_tensor((rng.random((4, 12, 15)) < 0.2).astype(np.uint8))
    target[1] = VOID
    counted: list[int] = []
    with FinalScorer([task], protocol) as scorer:
        work = scorer._work["edge"]
        count = work._function
        work._function = lambda pair: (counted.append(len(pair)), count(pair))[1]
        scorer.update(task, prediction, target)
        found = scorer.scores()["edge"]
    metric = Boundary(protocol, max_distance=0.1)
    metric.update(prediction[[0, 2, 3]], target[[0, 2, 3]])
    quick = Scorer([task], protocol)
    quick.update(task, prediction, target)
    assert found == {**metric.scores(), **quick.scores()["edge"]}
    assert len(counted) == found["images"] == 3


def test_nothing_to_score_is_nan() -> None:
    (task,) = build_tasks(tiny(EDGE))
    with FinalScorer([task], "survey") as scorer:
        empty = torch.full((2, 8, 9), VOID, dtype=torch.uint8)
        scorer.update(task, torch.rand(2, 8, 9), empty)
        scores = scorer.scores()["edge"]
    assert all(math.isnan(scores[name]) for name in ("odsF", "oisF", "AP", "pixel_maxF"))
    assert scores["images"] == 0
