"""`results.json`: everything that must be known to believe, compare and repeat a number."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

import densemtl
from densemtl.io.atomic import write_json
from densemtl.errors import ResultsError
from densemtl.metrics.delta_m import delta_m, task_deltas
from densemtl.config.renamed_keys import RENAMED_RESULT_FIELDS, translate_fields
from densemtl.types import ProtocolName

RESULTS = "results.json"
BASELINES = "baselines"
"""Folder of the single-task runs that others are compared with, beside these."""

FORMAT = 1


class TaskResult(BaseModel):
    """One task's metrics; null stands for a metric that had nothing to score.

    Attributes:
        primary: name of the metric that Delta_m reads.
        higher_is_better: its direction.
        selection: the metric that the weights were chosen by; None in older files.
        metrics: {metric: value}.
        delta: percent better than the single-task reference, if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary: str
    higher_is_better: bool
    selection: str | None = None
    metrics: dict[str, float | None]
    delta: float | None = None

    @model_validator(mode="after")
    def _has_what_it_names(self) -> TaskResult:
        lacking = [name for name in (self.primary, self.course) if name not in self.metrics]
        if lacking:
            raise ValueError(f"no metric {lacking[0]!r} among its own")
        return self

    @property
    def value(self) -> float:
        """The primary metric; NaN where it had nothing to score."""
        value = self.metrics[self.primary]
        return math.nan if value is None else value

    @property
    def course(self) -> str:
        """The metric whose course over training is known."""
        return self.selection or self.primary


class Baseline(BaseModel):
    """The single-task result that a task was compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    value: float
    weights: str


@dataclass(frozen=True)
class Terms:
    """What two results must share for Delta_m to mean something.

    Attributes:
        protocol: family of metrics.
        dataset: its name.
        split_fingerprint: hash of dataset, split and image ids.
        backbone: its name.
        metrics: {task: primary metric}.
        complete: whether the run goes to its end.
    """

    protocol: ProtocolName
    dataset: str
    split_fingerprint: str
    backbone: str
    metrics: dict[str, str]
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
        weights: hash of the scored weights.
        seed: of the run.
        step: of the scored weights.
        complete: whether the run went to its end, not only to --max-steps.
        latest: {task: what weights are chosen by} of the last validation, be it the best or not.
        seconds: training and validation took.
        images_per_second: training speed, validation left out.
        seconds_per_step: of training, likewise.
        parameters: of the whole network.
        gflop: of one forward pass at input size, batch 1, two a multiply-add.
        fingerprint: hash of all of the configuration that can change a number.
        versions: of code and libraries.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    run: dict[str, str]
    tasks: dict[str, TaskResult]
    delta_m: float | None = None
    baselines: dict[str, Baseline] = {}
    protocol: ProtocolName
    split: str
    split_fingerprint: str
    images: int
    weights: str
    seed: int
    step: int | None = None
    complete: bool = True
    latest: dict[str, float | None] = {}
    seconds: float | None = None
    images_per_second: float | None = None
    seconds_per_step: float | None = None
    parameters: int | None = None
    gflop: float | None = None
    fingerprint: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _says_what_was_run(self) -> Results:
        lacking = {"dataset", "backbone"} - self.run.keys()
        if lacking:
            raise ValueError(f"run: lacks {' and '.join(sorted(lacking))}")
        return self

    def terms(self) -> Terms:
        """What it may be compared with."""
        return Terms(
            protocol=self.protocol,
            dataset=self.run["dataset"],
            split_fingerprint=self.split_fingerprint,
            backbone=self.run["backbone"],
            metrics={task: result.primary for task, result in self.tasks.items()},
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
    file = file / RESULTS if file.is_dir() else file
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Results.model_validate(translate_fields(values, RENAMED_RESULT_FIELDS))
    except OSError as error:
        raise ResultsError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ResultsError(f"{file}: not a results file of this project: {reason}") from error


def compare(results: Results, singles: Mapping[str, Path]) -> Results:
    """The same results with Delta_m and each task's delta against single-task results.

    Args:
        results: the multi-task run's.
        singles: {task: results file or run folder} of one single-task run a task.

    Raises:
        ResultsError: a reference is missing, unfinished, or from another protocol, dataset,
            split, backbone or task.
    """
    loaded = load_references(results.terms(), singles)
    for task, single in loaded.items():
        _check_images(results.tasks[task], single.tasks[task], singles[task])
    multi = {task: result.value for task, result in results.tasks.items()}
    single_values = {task: single.tasks[task].value for task, single in loaded.items()}
    directions = {task: result.higher_is_better for task, result in results.tasks.items()}
    deltas = task_deltas(multi, single_values, directions)
    tasks = {
        task: result.model_copy(update={"delta": deltas[task]})
        for task, result in results.tasks.items()
    }
    baselines = {
        task: Baseline(file=str(singles[task]), value=single_values[task], weights=single.weights)
        for task, single in loaded.items()
    }
    total = delta_m(multi, single_values, directions)
    return results.model_copy(update={"tasks": tasks, "baselines": baselines, "delta_m": total})


def load_references(terms: Terms, singles: Mapping[str, Path]) -> dict[str, Results]:
    """Read single-task results, and refuse those that a run on these terms cannot be held against.

    Raises:
        ResultsError: one is missing, unfinished, or from another protocol, dataset, split,
            backbone or task.
    """
    lacking = [task for task in terms.metrics if task not in singles]
    if lacking:
        raise ResultsError(f"baselines: no single-task result for {', '.join(lacking)}")
    surplus = [task for task in singles if task not in terms.metrics]
    if surplus:
        raise ResultsError(f"baselines: {', '.join(surplus)}: no such task in this run")
    loaded = {task: load_results(file) for task, file in singles.items()}
    for task, single in loaded.items():
        _check_comparable(terms, task, single, singles[task])
    return loaded


def _check_comparable(terms: Terms, task: str, single: Results, file: Path) -> None:
    if list(single.tasks) != [task]:
        found = ", ".join(single.tasks)
        raise ResultsError(f"{file}: not a single-task run of {task!r} but of: {found}")
    if not single.complete and terms.complete:
        raise ResultsError(f"{file}: the run stopped early; finish it before comparing with it")
    theirs = single.terms()
    pairs = {
        "protocol": (theirs.protocol, terms.protocol),
        "dataset": (theirs.dataset, terms.dataset),
        "split": (theirs.split_fingerprint, terms.split_fingerprint),
        "backbone": (theirs.backbone, terms.backbone),
        "metric": (theirs.metrics[task], terms.metrics[task]),
    }
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            raise ResultsError(
                f"{file}: cannot be the reference of {task!r}: its {what} is {found}, this run's "
                f"is {wanted}; Delta_m compares like with like"
            )


def _check_images(ours: TaskResult, theirs: TaskResult, file: Path) -> None:
    """A task may be scored on a part of the split alone, as PASCAL-Context's edges are."""
    counts = [result.metrics.get("images") for result in (theirs, ours)]
    if None not in counts and counts[0] != counts[1]:
        found, wanted = (f"{count:g} images" for count in counts)
        raise ResultsError(
            f"{file}: cannot be a reference: it was scored on {found}, this run on {wanted}; "
            "Delta_m compares like with like"
        )


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: NaN becomes null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


@cache
def versions() -> dict[str, str]:
    """What computes the numbers; asked once, since files may change while a long run goes on."""
    found = {"densemtl": _code_version(), "python": platform.python_version()}
    for package in ("torch", "torchvision", "timm", "numpy", "albumentations"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _code_version() -> str:
    """The release, and in a checkout the commit, marked where files differ from it."""
    checkout = Path(densemtl.__file__).parents[1]
    if not (checkout / ".git").exists():
        return densemtl.__version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return densemtl.__version__
    commit = done.stdout.strip()
    return f"{densemtl.__version__}+{commit}" if done.returncode == 0 else densemtl.__version__
