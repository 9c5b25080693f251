"""Metrics that a user adds to a task, and custom protocols."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from densemtl.config.components import TaskConfig
from densemtl.create import create_tasks
from densemtl.engine.loading import load_trained_model
from densemtl.errors import ConfigError
from densemtl.factory import build_tasks
from densemtl.metrics.base import TaskMetric
from densemtl.metrics.protocols.base import MetricSpec, TaskScoring
from densemtl.metrics.protocols.survey import Survey
from densemtl.results.results import load_results
from densemtl.runs.evaluate_run import evaluate_model
from densemtl.runs.train_run import train_experiment
from densemtl.tasks.base import Task
from densemtl.types import IGNORE_INDEX
from tests.helpers.experiments import make_tiny_experiment


class ErrorRate(TaskMetric):
    """Percentage of pixels with a wrong class, which gets the class names from the task."""

    wrong: Tensor
    pixels: Tensor

    def __init__(self, class_names: tuple[str, ...], *, scale: float = 100.0) -> None:
        super().__init__()
        self.classes, self.scale = len(class_names), scale
        for name in ("wrong", "pixels"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        valid = target != IGNORE_INDEX
        self.wrong += ((prediction != target) & valid).sum()
        self.pixels += valid.sum()

    def compute(self) -> dict[str, float]:
        return {"error_rate": (self.scale * self.wrong / self.pixels).item()}


class Own(Survey):
    """Protocol that scores depth with the metrics of regression."""

    tasks: ClassVar[dict[str, TaskScoring]] = {
        **Survey.tasks,
        "depth": TaskScoring(MetricSpec("regression"), "mae", selection="rmse"),
    }


class Silent(Survey):
    """Protocol that does not score depth."""

    tasks: ClassVar[dict[str, TaskScoring]] = {"classification": Survey.tasks["classification"]}


@pytest.fixture(autouse=True)
def toybox(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("toybox")
    module.ErrorRate, module.Own, module.Silent = ErrorRate, Own, Silent
    monkeypatch.setitem(sys.modules, "toybox", module)


ADDED = "tasks=[{name: semseg, metrics: ['toybox:ErrorRate']}, depth]"


def test_results_contain_added_metrics(tmp_path: Path) -> None:
    train_experiment(make_tiny_experiment(ADDED, "train.epochs=1"), tmp_path, "cpu")
    metrics = load_results(tmp_path).tasks["semseg"].metrics
    assert metrics["error_rate"] == pytest.approx(100 - metrics["pixel_accuracy"])
    loaded = load_trained_model(tmp_path, device="cpu", trust_custom_code=True)
    evaluated = evaluate_model(loaded, "val").tasks["semseg"].metrics
    assert evaluated == pytest.approx(metrics, rel=1e-6, nan_ok=True)


def test_finished_run_is_evaluated_again_with_added_metrics(tmp_path: Path) -> None:
    before = train_experiment(make_tiny_experiment("train.epochs=1"), tmp_path, "cpu")
    after = train_experiment(make_tiny_experiment(ADDED, "train.epochs=1"), tmp_path, "cpu")
    assert (after.weights_hash, after.step) == (before.weights_hash, before.step)
    assert after.config_hash == before.config_hash
    metrics, expected = after.tasks["semseg"].metrics, before.tasks["semseg"].metrics
    assert set(metrics) == {*expected, "error_rate"}
    assert {name: metrics[name] for name in expected} == pytest.approx(
        expected, rel=1e-6, nan_ok=True
    )


def test_added_image_metrics_are_computed_for_the_best_weights_only(tmp_path: Path) -> None:
    metrics = "[{name: boundary, max_distance: 0.05}, calibration_error]"
    added = f"tasks=[{{name: saliency, metrics: {metrics}}}]"
    train_experiment(make_tiny_experiment(added, "train.epochs=1"), tmp_path, "cpu")
    assert load_results(tmp_path).tasks["saliency"].metrics.keys() == {
        *("maxF", "mIoU", "odsF", "oisF", "AP", "ECE", "images", "occurring_ids")
    }
    text = (tmp_path / "log.jsonl").read_text()
    assert "saliency/ECE" in text
    assert "odsF" not in text


def test_added_metrics_get_options_and_arguments_of_the_task() -> None:
    added = [{"name": "toybox:ErrorRate", "scale": 1.0}]
    (task,) = create_tasks([{"name": "semseg", "class_names": ["a", "b"], "metrics": added}])
    _, metric = task.metrics("survey")
    assert isinstance(metric, ErrorRate)
    assert (metric.classes, metric.scale) == (2, 1.0)


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        (
            "[{name: semseg, metrics: [mio]}]",
            "tasks.0.metrics.0.name: no 'mio' in metrics: did you mean 'miou'?",
        ),
        (
            "[{name: semseg, metrics: [{name: 'toybox:ErrorRate', scal: 1}]}]",
            "tasks.0.metrics.0.scal: unknown key, did you mean 'scale'?",
        ),
        (
            "[{name: semseg, metrics: ['toybox:Own']}]",
            "tasks.0.metrics.0: 'toybox:Own' cannot score 'semseg': 'toybox:Own' is not a",
        ),
        (
            "[{name: depth, metrics: ['toybox:ErrorRate']}]",
            "tasks.0.metrics.0: 'toybox:ErrorRate' cannot score 'depth': 'toybox:ErrorRate' does "
            "not fit this task: ",
        ),
        (
            "[semseg, {name: depth, metrics: [regression]}]",
            "tasks.1.metrics.0: 'regression' computes 'rmse', which the task already has",
        ),
        (
            "[{name: semseg, metrics: ['toybox:ErrorRate', 'toybox:ErrorRate']}]",
            "tasks.0.metrics.1: 'toybox:ErrorRate' computes 'error_rate', which the task already",
        ),
        (
            "[{name: depth, metrics: [normals]}]",
            "tasks.0.metrics.0: 'normals' computes 'rmse', which the task already has",
        ),
        (
            "[{name: normals, metrics: [depth]}]",
            "tasks.0.metrics.0: 'depth' cannot score 'normals': RuntimeError: ",
        ),
        (
            "[{name: semseg, metrics: [depth]}]",
            "tasks.0.metrics.0: 'depth' cannot score 'semseg': RuntimeError: ",
        ),
    ],
)
def test_unsuitable_metrics_raise_an_error_of_one_line(tasks: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_tasks(make_tiny_experiment(f"tasks={tasks}"))
    (message,) = str(caught.value).splitlines()
    assert message.removeprefix("command line: ").startswith(line)


def test_auxiliary_tasks_are_not_scored() -> None:
    auxiliary = "auxiliary_tasks=[{name: normals, metrics: [regression]}]"
    with pytest.raises(ConfigError, match=r"auxiliary_tasks\.0\.metrics: auxiliary tasks are not"):
        make_tiny_experiment("decoder.name=pad_net", auxiliary)


def test_custom_protocol(tmp_path: Path) -> None:
    train_experiment(
        make_tiny_experiment("protocol='toybox:Own'", "train.epochs=1"), tmp_path, "cpu"
    )
    results = load_results(tmp_path)
    assert results.protocol == "toybox:Own"
    depth = results.tasks["depth"]
    assert (depth.primary_metric, depth.selection_metric) == ("mae", "rmse")
    assert depth.metrics.keys() == {"rmse", "mae", "images"}


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("surve", r"protocol: no 'surve' in protocols: did you mean 'survey'\?"),
        ("toybox:ErrorRate", r"'toybox:ErrorRate' is not a ScoringProtocol"),
        ("toybox:Silent", r"protocol: 'toybox:Silent' does not score 'depth': add Depth to its"),
    ],
)
def test_unsuitable_protocols_raise_an_error_before_training(protocol: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_tasks(make_tiny_experiment(f"protocol='{protocol}'"))


def test_task_that_overrides_its_metrics_needs_no_protocol() -> None:
    class Alone(Task):
        """Task that overrides the metrics of the protocol."""

        make_metric = get_primary_metric = lambda self, protocol: protocol  # type: ignore[assignment]

    Alone.__abstractmethods__ = frozenset()
    task = Alone("alone")
    assert (task.make_metric("survey"), task.get_selection_metric("survey")) == ("survey", "survey")
    assert task.make_final_metric("survey") is None


def test_added_metrics_are_dumped_and_do_not_change_the_config_hash() -> None:
    experiment = make_tiny_experiment(ADDED)
    assert experiment.tasks[0].metrics[0].name == "toybox:ErrorRate"
    assert TaskConfig(**experiment.tasks[0].model_dump()) == experiment.tasks[0]
    assert experiment.compute_config_hash() == make_tiny_experiment().compute_config_hash()
