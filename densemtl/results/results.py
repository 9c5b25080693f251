"""The file `results.json`, with all facts needed to verify, compare and reproduce a result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from densemtl.config.input_paths import explain_config
from densemtl.config.renamed_keys import RENAMED_RESULT_FIELDS
from densemtl.config.shipped_models import find_model
from densemtl.config.translation import translate_fields
from densemtl.errors import ResultsError
from densemtl.io.atomic import write_json
from densemtl.io.paths import describe_missing
from densemtl.registry import format_validation_errors
from densemtl.types import ProtocolName

RESULTS_FILE = "results.json"
"""Name of the results file in a run folder."""
BASELINES = "baselines"
"""Folder of the single-task runs, in the folder of the runs that are compared with them."""

FORMAT_VERSION: Final = 1
"""Version of the layout of the results file."""


class TaskResult(BaseModel):
    """Metrics of one task; None for a metric that had nothing to score.

    Attributes:
        primary_metric: name of the metric that is used for Delta_m.
        higher_is_better: direction of the primary metric.
        selection_metric: name of the metric by which the weights were selected; None in older
            files.
        metrics: {metric name: value}.
        delta: improvement over the single-task baseline in percent; None without baseline, or if
            it is undefined, because a value is not finite or that of the baseline is 0.
        note: what the user must know about the labels to interpret the metrics; "" if nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary_metric: str
    higher_is_better: bool
    selection_metric: str | None = None
    metrics: dict[str, FiniteFloat | None]
    delta: float | None = None
    note: str = ""

    @model_validator(mode="after")
    def _validate_metric_names(self) -> TaskResult:
        missing = [
            name
            for name in (self.primary_metric, self.validation_metric)
            if name not in self.metrics
        ]
        if missing:
            raise ValueError(f"metrics: no value of the metric {missing[0]!r}")
        return self

    @property
    def value(self) -> float:
        """Value of the primary metric; NaN if it had nothing to score."""
        value = self.metrics[self.primary_metric]
        return math.nan if value is None else value

    @property
    def validation_metric(self) -> str:
        """Name of the metric that is computed at every validation during training."""
        return self.selection_metric or self.primary_metric


class Baseline(BaseModel):
    """Single-task result with which a task was compared.

    Attributes:
        file: the results file or run folder.
        value: value of the primary metric; None if it had nothing to score.
        weights_hash: hash of the scored weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    value: float | None
    weights_hash: str


@dataclass(frozen=True)
class ComparisonKey:
    """Properties that two results must share so that Delta_m is meaningful.

    Attributes:
        protocol: name of the protocol.
        dataset: name of the dataset.
        split_fingerprint: hash of dataset, split and image ids.
        backbone: name of the backbone.
        primary_metrics: {task: name of its primary metric}.
        complete: whether the run trained to its end.
    """

    protocol: ProtocolName
    dataset: str
    split_fingerprint: str
    backbone: str
    primary_metrics: dict[str, str]
    complete: bool = True


class EarlierResult(BaseModel):
    """Results of a run before it was extended.

    Attributes:
        steps: number of optimizer steps of the run at that time.
        step: optimizer step of the scored weights.
        metrics: {task: {metric name: value}}.
        delta_m: multi-task performance in percent; None without baselines.
        weights_hash: hash of the scored weights.
        config_hash: hash of the configuration.
        seconds: duration of training and validation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Annotated[int, Field(ge=0, lt=2**63)]
    step: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    metrics: dict[str, dict[str, FiniteFloat | None]]
    delta_m: FiniteFloat | None = None
    weights_hash: str
    config_hash: str
    seconds: FiniteFloat | None = None


class Results(BaseModel):
    """Evaluation of one set of weights.

    Attributes:
        format: version of the layout of the file.
        run: names of decoder, backbone, head, balancing and dataset, and hashes of teachers.
        tasks: {task: result}.
        delta_m: multi-task performance in percent relative to the baselines, over the tasks that
            have a delta; None without such tasks.
        baselines: {task: single-task result}.
        protocol: name of the protocol.
        split: name of the split of the dataset.
        split_fingerprint: hash of dataset, split and image ids.
        images: number of scored images.
        weights_hash: hash of the scored weights.
        rounded_from: hash of the weights before they were rounded to half precision, if these were
            scored instead; "" if the weights with `weights_hash` were scored.
        seed: seed of the run.
        step: optimizer step of the scored weights.
        complete: whether the run trained to its end; False if it was stopped by `--max-steps`.
        stop_reason: why the training ended before its last step by itself; "" if it did not.
        latest: {task: selection metric} of the last validation, which may not be the best.
        seconds: duration of training and validation.
        images_per_second: training speed without validation.
        seconds_per_step: duration of a training step without validation.
        parameters: number of parameters of the whole model.
        gflop: GFLOP of one forward pass at input size with batch size 1; a multiply-add is two
            FLOP.
        config_hash: hash of all configuration keys that can influence a result.
        versions: versions of code and libraries.
        warnings: what is suspicious in the data, found before training by `densemtl.data.check`.
        set_images: {set: {split: number of images}} if the images are from several datasets.
        history: results of the run before each of its extensions (`--extend`), oldest first.

    Example:
        >>> results = Results(
        ...     run={"decoder": "hard_sharing", "backbone": "resnet18", "dataset": "nyud"},
        ...     tasks={
        ...         "depth": TaskResult(
        ...             primary_metric="rmse", higher_is_better=False, metrics={"rmse": 0.62}
        ...         )
        ...     },
        ...     protocol="survey",
        ...     split="val",
        ...     split_fingerprint="1f0c",
        ...     images=654,
        ...     weights_hash="83ab",
        ...     seed=0,
        ...     config_hash="c2d9",
        ...     versions={},
        ... )
        >>> results.tasks["depth"].value
        0.62
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = FORMAT_VERSION
    run: dict[str, str]
    tasks: dict[str, TaskResult]
    delta_m: float | None = None
    baselines: dict[str, Baseline] = {}
    protocol: ProtocolName
    split: str
    split_fingerprint: str
    images: int
    weights_hash: str
    rounded_from: str = ""
    seed: int
    step: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    complete: bool = True
    stop_reason: str = ""
    latest: dict[str, FiniteFloat | None] = {}
    seconds: FiniteFloat | None = None
    images_per_second: float | None = None
    seconds_per_step: float | None = None
    parameters: int | None = None
    gflop: float | None = None
    config_hash: str
    versions: dict[str, str]
    warnings: list[str] = []
    set_images: dict[str, dict[str, int]] = {}
    history: list[EarlierResult] = []

    @model_validator(mode="after")
    def _validate_run(self) -> Results:
        missing = {"dataset", "backbone"} - self.run.keys()
        if missing:
            raise ValueError(f"run: no {' and '.join(sorted(missing))}")
        return self

    def list_tasks_without_delta(self) -> list[str]:
        """List the tasks that are left out of Delta_m although they have a baseline."""
        return [task for task in self.baselines if self.tasks[task].delta is None]

    @property
    def full_delta_m(self) -> float | None:
        """Delta_m if it includes all tasks, so that it can be compared between runs; else None."""
        return None if self.list_tasks_without_delta() else self.delta_m

    def get_comparison_key(self) -> ComparisonKey:
        """Return the properties that a result must share to be compared with this one."""
        return ComparisonKey(
            protocol=self.protocol,
            dataset=self.run["dataset"],
            split_fingerprint=self.split_fingerprint,
            backbone=self.run["backbone"],
            primary_metrics={task: result.primary_metric for task, result in self.tasks.items()},
            complete=self.complete,
        )

    def save(self, file: Path) -> None:
        """Write the results as JSON, atomically.

        Args:
            file: path of the file.
        """
        write_json(file, self.model_dump(mode="json"))


def load_results(file: Path) -> Results:
    """Load a results file.

    Args:
        file: path of a results file or a run folder, or the name of a shipped model.

    Returns:
        The results.

    Raises:
        ResultsError: if the file is missing, corrupt or of another format.
    """
    if hint := explain_config(file):
        raise ResultsError(f"{file}: {hint}")
    file = find_model(file)
    file = file / RESULTS_FILE if file.is_dir() else file
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Results.model_validate(translate_fields(values, RENAMED_RESULT_FIELDS))
    except FileNotFoundError as error:
        raise ResultsError(describe_missing(file, "cannot be read: No such file")) from error
    except OSError as error:
        raise ResultsError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        reason = format_validation_errors(error, "", Results)[0]
        raise ResultsError(f"{file}: not a valid results file: {reason}") from error
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno} is no JSON"
        raise ResultsError(f"{file}: not a valid results file: {reason}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ResultsError(f"{file}: not a valid results file: {reason}") from error


def nan_to_none(values: Mapping[str, float]) -> dict[str, float | None]:
    """Replace NaN and infinity by None, since JSON has no such numbers.

    Args:
        values: {metric name: value}.

    Returns:
        {metric name: value, or None if it is not finite}.

    Example:
        >>> nan_to_none({"mIoU": 40.5, "odsF": float("nan")})
        {'mIoU': 40.5, 'odsF': None}
    """
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
