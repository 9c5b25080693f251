"""TensorBoard: files in the run's folder, read by `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from densemtl.trackers.base import RunInfo, Tracker


class TensorBoard(Tracker):
    """Event files in `tensorboard/`; what was written after the step gone on from is hidden."""

    def start(self, run_info: RunInfo) -> None:
        """Open a file of events."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(run_info.folder / "tensorboard"), purge_step=run_info.step + 1
        )

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A curve each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Among the images."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def finish(self, failed: bool) -> None:
        """Close the file."""
        self._writer.close()
