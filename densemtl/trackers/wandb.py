"""Weights & Biases, an extra: online, or offline to be sent by `wandb sync` later."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Literal

import numpy as np

from densemtl.io.atomic import atomic_write
from densemtl.trackers.background import FINISH_TIMEOUT_SECONDS
from densemtl.trackers.base import RunInfo, Tracker, require_module

ID_FILE = "wandb.id"


class WandB(Tracker):
    """One W&B run for each folder, which keeps its id: a run that goes on is the same there.

    Numbers are drawn over the optimiser's step, so those that a killed run had logged after its
    last checkpoint appear twice, at the same place.

    Args:
        project: where the run appears.
        entity: user or team; W&B's default if left out.
        group: puts runs together.
        tags: of the run.
        mode: "offline" writes to the run's folder alone; left out, what WANDB_MODE says.

    Raises:
        ConfigError: the extra `wandb` is not installed.
    """

    def __init__(
        self,
        *,
        project: str = "densemtl",
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        require_module("wandb", "wandb")
        self._project, self._entity, self._group = project, entity, group
        self._tags, self._mode = tags, mode

    def start(self, run_info: RunInfo) -> None:
        """Open the W&B run, asking for an API key where there is none and somebody to ask."""
        import wandb

        file = run_info.folder / ID_FILE
        if not file.exists():
            with atomic_write(file) as tmp_path:
                tmp_path.write_text(secrets.token_hex(4), encoding="utf-8")
        self._image = wandb.Image
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            group=self._group,
            tags=self._tags,
            mode=self._mode,
            name=run_info.title,
            config=dict(run_info.config),
            dir=str(run_info.folder),
            id=file.read_text(encoding="utf-8"),
            resume="allow",
            reinit="create_new",
            # The terminal is not recorded: a progress bar would fill the record.
            settings=wandb.Settings(console="off", finish_timeout=FINISH_TIMEOUT_SECONDS),
        )
        self._run.define_metric("*", step_metric="step")

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve each."""
        self._run.log({**values, "step": step})

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Among the media."""
        self._run.log({name: self._image(image), "step": step})

    def finish(self, failed: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=int(failed))
