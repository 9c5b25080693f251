"""MLflow tracker (an extra), with a tracking server or a local database file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from densemtl.io.atomic import atomic_write
from densemtl.trackers.base import RunInfo, Tracker, require_module

ID_FILE = "mlflow.id"
"""File in the run folder with the id of the MLflow run."""

MAX_PARAM_LENGTH = 500
"""Maximum number of characters of a logged parameter."""


class MLflow(Tracker):
    """Tracker that logs to one MLflow run per run folder.

    The id of the MLflow run is saved in the run folder, so that a resumed run continues the same
    MLflow run.

    Args:
        tracking_uri: URI of the server, or `sqlite:///FILE`. The default is MLFLOW_TRACKING_URI, or
            else `mlflow.db` in the working directory.
        experiment_name: MLflow experiment of the run; created if it does not exist.

    Raises:
        ConfigError: if the extra `mlflow` is not installed.
    """

    def __init__(
        self, *, tracking_uri: str | None = None, experiment_name: str = "densemtl"
    ) -> None:
        require_module("mlflow", "mlflow")
        self._tracking_uri, self._experiment_name = tracking_uri, experiment_name

    def start(self, run_info: RunInfo) -> None:
        """Create the MLflow run, or open it again.

        Args:
            run_info: information about the run.
        """
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
        """Log one metric per number.

        Characters that MLflow does not allow in a name are replaced by `_`.

        Args:
            step: number of the optimizer step.
            values: {name: number}.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_sanitize_name(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log an image as an artifact.

        Args:
            step: number of the optimizer step.
            name: name of the image.
            image: uint8 RGB image, shape (H, W, 3).
        """
        self._client.log_image(self._id, image, key=name, step=step)

    def finish(self, failed: bool) -> None:
        """Set the status of the MLflow run.

        Args:
            failed: whether the run ended by an error.
        """
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _sanitize_name(name: str) -> str:
    return re.sub(r"[^\w\-./ ]", "_", name)


def _flatten(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings: `{"optim": {"lr": 1}}` gives `("optim.lr", 1)`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}{key}.")
        else:
            yield _sanitize_name(f"{path}{key}"), value
