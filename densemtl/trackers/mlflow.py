"""MLflow, an extra: a server, or a database file, which needs no network."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from densemtl.io.atomic import replacing
from densemtl.trackers.base import TrackedRun, Tracker, require

ID = "mlflow.id"

LONGEST = 500
"""Characters of a parameter."""


class MLflow(Tracker):
    """One MLflow run for each folder, which keeps its id: a run that goes on is the same there.

    Args:
        uri: of the server, or `sqlite:///FILE`; left out, what MLFLOW_TRACKING_URI says, else
            `mlflow.db` in the working folder.
        experiment: where the run appears; made where there is none.

    Raises:
        ConfigError: the extra `mlflow` is not installed.
    """

    def __init__(self, *, uri: str | None = None, experiment: str = "densemtl") -> None:
        require("mlflow", "mlflow")
        self._uri, self._experiment = uri, experiment

    def start(self, run: TrackedRun) -> None:
        """Make the MLflow run, or open it again."""
        from mlflow import MlflowClient

        self._client = MlflowClient(self._uri)
        file = run.folder / ID
        if file.exists():
            self._id = file.read_text(encoding="utf-8")
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._create(run)
        with replacing(file) as draft:
            draft.write_text(self._id, encoding="utf-8")

    def _create(self, run: TrackedRun) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        place = found.experiment_id if found else self._client.create_experiment(self._experiment)
        made: str = self._client.create_run(place, run_name=run.title).info.run_id
        for name, value in _flat(run.config):
            self._client.log_param(made, name, str(value)[:LONGEST])
        return made

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve each; what MLflow forbids in a name becomes `_`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_allowed(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Among the artifacts."""
        self._client.log_image(self._id, picture, key=name, step=step)

    def finish(self, failed: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _allowed(name: str) -> str:
    return re.sub(r"[^\w\-./ ]", "_", name)


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """`{"optim": {"lr": 1}}` -> `("optim.lr", 1)`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield _allowed(f"{path}{key}"), value
