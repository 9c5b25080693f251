"""`results.json`: everything that must be known to believe, compare and repeat a number."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from densemtl.config.renamed_keys import RENAMED_RESULT_FIELDS
from densemtl.config.translation import translate_fields
from densemtl.errors import ResultsError
from densemtl.io.atomic import write_json
from densemtl.metrics.delta_m import compute_delta_m, compute_task_deltas
from densemtl.types import ProtocolName

RESULTS_FILE = "results.json"
BASELINES = "baselines"
"""Folder of the single-task runs that others are compared with, beside these."""

FORMAT_VERSION = 1


class TaskResult(BaseModel):
    """One task's metrics; null stands for a metric that had nothing to score.

    Attributes:
        primary_metric: name of the metric that Delta_m reads.
        higher_is_better: its direction.
        selection_metric: the metric that the weights were chosen by; None in older files.
        metrics: {metric: value}.
        delta: percent better than the single-task reference, if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary_metric: str
    higher_is_better: bool
    selection_metric: str | None = None
    metrics: dict[str, float | None]
    delta: float | None = None

    @model_validator(mode="after")
    def _validate_metric_names(self) -> TaskResult:
        lacking = [
            name
            for name in (self.primary_metric, self.validation_metric)
            if name not in self.metrics
        ]
        if lacking:
            raise ValueError(f"no metric {lacking[0]!r} among its own")
        return self

    @property
    def value(self) -> float:
        """The primary metric; NaN where it had nothing to score."""
        value = self.metrics[self.primary_metric]
        return math.nan if value is None else value

    @property
    def validation_metric(self) -> str:
        """The metric whose course over training is known."""
        return self.selection_metric or self.primary_metric


class Baseline(BaseModel):
    """The single-task result that a task was compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    value: float
    weights_hash: str


@dataclass(frozen=True)
class ComparisonKey:
    """What two results must share for Delta_m to mean something.

    Attributes:
        protocol: family of metrics.
        dataset: its name.
        split_fingerprint: hash of dataset, split and image ids.
        backbone: its name.
        primary_metrics: {task: primary metric}.
        complete: whether the run goes to its end.
    """

    protocol: ProtocolName
    dataset: str
    split_fingerprint: str
    backbone: str
    primary_metrics: dict[str, str]
    complete: bool = True


class Results(BaseModel):
    """One evaluated set of weights.

    Attributes:
        format: version of this layout.
        run: what was evaluated: decoder, backbone, head, balancing, dataset, by name.
        tasks: {task: its result}.
        delta_m: multi-task performance in percent, with the baselines it is relative to.
        baselines: {task: single-task reference}.
        protocol: family of metrics.
        split: which part of the dataset was scored.
        split_fingerprint: hash of dataset, split and image ids.
        images: how many were scored.
        weights_hash: hash of the scored weights.
        seed: of the run.
        step: of the scored weights.
        complete: whether the run went to its end, not only to --max-steps.
        latest: {task: what weights are chosen by} of the last validation, be it the best or not.
        seconds: training and validation took.
        images_per_second: training speed, validation left out.
        seconds_per_step: of training, likewise.
        parameters: of the whole network.
        gflop: of one forward pass at input size, batch 1, two a multiply-add.
        config_hash: hash of all of the configuration that can change a number.
        versions: of code and libraries.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT_VERSION
    run: dict[str, str]
    tasks: dict[str, TaskResult]
    delta_m: float | None = None
    baselines: dict[str, Baseline] = {}
    protocol: ProtocolName
    split: str
    split_fingerprint: str
    images: int
    weights_hash: str
    seed: int
    step: int | None = None
    complete: bool = True
    latest: dict[str, float | None] = {}
    seconds: float | None = None
    images_per_second: float | None = None
    seconds_per_step: float | None = None
    parameters: int | None = None
    gflop: float | None = None
    config_hash: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _validate_run(self) -> Results:
        lacking = {"dataset", "backbone"} - self.run.keys()
        if lacking:
            raise ValueError(f"run: lacks {' and '.join(sorted(lacking))}")
        return self

    def get_comparison_key(self) -> ComparisonKey:
        """What it may be compared with."""
        return ComparisonKey(
            protocol=self.protocol,
            dataset=self.run["dataset"],
            split_fingerprint=self.split_fingerprint,
            backbone=self.run["backbone"],
            primary_metrics={task: result.primary_metric for task, result in self.tasks.items()},
            complete=self.complete,
        )

    def save(self, file: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(file, self.model_dump(mode="json"))


def load_results(file: Path) -> Results:
    """Read a results file, or that of a run's folder.

    Raises:
        ResultsError: missing, corrupt or of another format.
    """
    file = file / RESULTS_FILE if file.is_dir() else file
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Results.model_validate(translate_fields(values, RENAMED_RESULT_FIELDS))
    except OSError as error:
        raise ResultsError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ResultsError(f"{file}: not a results file of this project: {reason}") from error


def add_baselines(results: Results, baseline_files: Mapping[str, Path]) -> Results:
    """The same results with Delta_m and each task's delta against single-task results.

    Args:
        results: the multi-task run's.
        baseline_files: {task: results file or run folder} of one single-task run a task.

    Raises:
        ResultsError: a reference is missing, unfinished, or from another protocol, dataset,
            split, backbone or task.
    """
    loaded = load_baselines(results.get_comparison_key(), baseline_files)
    for task, single in loaded.items():
        _check_image_counts(results.tasks[task], single.tasks[task], baseline_files[task])
    multi = {task: result.value for task, result in results.tasks.items()}
    single_values = {task: single.tasks[task].value for task, single in loaded.items()}
    directions = {task: result.higher_is_better for task, result in results.tasks.items()}
    deltas = compute_task_deltas(multi, single_values, directions)
    tasks = {
        task: result.model_copy(update={"delta": deltas[task]})
        for task, result in results.tasks.items()
    }
    baselines = {
        task: Baseline(
            file=str(baseline_files[task]),
            value=single_values[task],
            weights_hash=single.weights_hash,
        )
        for task, single in loaded.items()
    }
    total = compute_delta_m(multi, single_values, directions)
    return results.model_copy(update={"tasks": tasks, "baselines": baselines, "delta_m": total})


def load_baselines(
    comparison_key: ComparisonKey, baseline_files: Mapping[str, Path]
) -> dict[str, Results]:
    """Read single-task results, and refuse those that a run on these terms cannot be held against.

    Raises:
        ResultsError: one is missing, unfinished, or from another protocol, dataset, split,
            backbone or task.
    """
    lacking = [task for task in comparison_key.primary_metrics if task not in baseline_files]
    if lacking:
        raise ResultsError(f"baselines: no single-task result for {', '.join(lacking)}")
    surplus = [task for task in baseline_files if task not in comparison_key.primary_metrics]
    if surplus:
        raise ResultsError(f"baselines: {', '.join(surplus)}: no such task in this run")
    loaded = {task: load_results(file) for task, file in baseline_files.items()}
    for task, single in loaded.items():
        _check_comparable(comparison_key, task, single, baseline_files[task])
    return loaded


def _check_comparable(
    comparison_key: ComparisonKey, task: str, baseline: Results, file: Path
) -> None:
    if list(baseline.tasks) != [task]:
        actual = ", ".join(baseline.tasks)
        raise ResultsError(f"{file}: not a single-task run of {task!r} but of: {actual}")
    if not baseline.complete and comparison_key.complete:
        raise ResultsError(f"{file}: the run stopped early; finish it before comparing with it")
    theirs = baseline.get_comparison_key()
    pairs = {
        "protocol": (theirs.protocol, comparison_key.protocol),
        "dataset": (theirs.dataset, comparison_key.dataset),
        "split": (theirs.split_fingerprint, comparison_key.split_fingerprint),
        "backbone": (theirs.backbone, comparison_key.backbone),
        "metric": (theirs.primary_metrics[task], comparison_key.primary_metrics[task]),
    }
    for name, (actual, expected) in pairs.items():
        if actual != expected:
            raise ResultsError(
                f"{file}: cannot be the reference of {task!r}: its {name} is {actual}, this run's "
                f"is {expected}; Delta_m compares like with like"
            )


def _check_image_counts(task_result: TaskResult, baseline: TaskResult, file: Path) -> None:
    """A task may be scored on a part of the split alone, as PASCAL-Context's edges are."""
    counts = [result.metrics.get("images") for result in (baseline, task_result)]
    if None not in counts and counts[0] != counts[1]:
        actual, expected = (f"{count:g} images" for count in counts)
        raise ResultsError(
            f"{file}: cannot be a reference: it was scored on {actual}, this run on {expected}; "
            "Delta_m compares like with like"
        )


def nan_to_none(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: NaN becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
