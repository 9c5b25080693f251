"""Weights & Biases tracker (an extra), online, or offline for a later `wandb sync`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Literal

import numpy as np

from densemtl.io.atomic import atomic_write
from densemtl.trackers.background import FINISH_TIMEOUT_SECONDS
from densemtl.trackers.base import RunInfo, Tracker, require_module

ID_FILE = "wandb.id"
"""File in the run folder with the id of the W&B run."""


class WandB(Tracker):
    """Tracker that logs to one W&B run per run folder.

    The id of the W&B run is saved in the run folder, so that a resumed run continues the same W&B
    run. The x-axis of all charts is the optimizer step. Numbers that a killed run had logged after
    its last checkpoint appear twice, at the same position.

    Args:
        project: W&B project of the run.
        entity: user or team; the default is that of W&B.
        group: name that groups runs.
        tags: tags of the run.
        mode: "online", or "offline" to write only into the run folder. The default is WANDB_MODE.

    Raises:
        ConfigError: if the extra `wandb` is not installed.
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
        """Open the W&B run. W&B may ask for an API key if none is configured.

        Args:
            run_info: information about the run.
        """
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
            # The terminal output is not recorded, because the progress bar would fill the record.
            settings=wandb.Settings(console="off", finish_timeout=FINISH_TIMEOUT_SECONDS),
        )
        self._run.define_metric("*", step_metric="step")

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log one chart per number.

        Args:
            step: number of the optimizer step.
            values: {name: number}.
        """
        self._run.log({**values, "step": step})

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log an image as media.

        Args:
            step: number of the optimizer step.
            name: name of the image.
            image: uint8 RGB image, shape (H, W, 3).
        """
        self._run.log({name: self._image(image), "step": step})

    def finish(self, failed: bool) -> None:
        """Upload pending data and close the W&B run.

        Args:
            failed: whether the run ended by an error.
        """
        self._run.finish(exit_code=int(failed))
