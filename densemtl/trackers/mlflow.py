"""MLflow, an extra: a server, or a database file, which needs no network."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from densemtl.io.atomic import atomic_write
from densemtl.trackers.base import RunInfo, Tracker, require_module

ID_FILE = "mlflow.id"

MAX_PARAM_LENGTH = 500
"""Characters of a parameter."""


class MLflow(Tracker):
    """One MLflow run for each folder, which keeps its id: a run that goes on is the same there.

    Args:
        tracking_uri: of the server, or `sqlite:///FILE`; left out, what MLFLOW_TRACKING_URI says,
            else `mlflow.db` in the working folder.
        experiment_name: where the run appears; made where there is none.

    Raises:
        ConfigError: the extra `mlflow` is not installed.
    """

    def __init__(
        self, *, tracking_uri: str | None = None, experiment_name: str = "densemtl"
    ) -> None:
        require_module("mlflow", "mlflow")
        self._tracking_uri, self._experiment_name = tracking_uri, experiment_name

    def start(self, run_info: RunInfo) -> None:
        """Make the MLflow run, or open it again."""
        from mlflow import MlflowClient

        self._client = MlflowClient(self._tracking_uri)
        file = run_info.folder / ID_FILE
        if file.exists():
            self._id = file.read_text(encoding="utf-8")
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._create_run(run_info)
        with atomic_write(file) as tmp_path:
            tmp_path.write_text(self._id, encoding="utf-8")

    def _create_run(self, run_info: RunInfo) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment_name)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(self._experiment_name)
        )
        run_id: str = self._client.create_run(experiment_id, run_name=run_info.title).info.run_id
        for name, value in _flatten(run_info.config):
            self._client.log_param(run_id, name, str(value)[:MAX_PARAM_LENGTH])
        return run_id

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve each; what MLflow forbids in a name becomes `_`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_sanitize_name(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Among the artifacts."""
        self._client.log_image(self._id, image, key=name, step=step)

    def finish(self, failed: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _sanitize_name(name: str) -> str:
    return re.sub(r"[^\w\-./ ]", "_", name)


def _flatten(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """`{"optim": {"lr": 1}}` -> `("optim.lr", 1)`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}{key}.")
        else:
            yield _sanitize_name(f"{path}{key}"), value
