"""TensorBoard tracker: event files in the run folder, displayed by `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from densemtl.trackers.base import RunInfo, Tracker


class TensorBoard(Tracker):
    """Tracker that writes event files into `tensorboard/` in the run folder.

    If a run resumes, TensorBoard hides the events after the step from which it resumes.
    """

    def start(self, run_info: RunInfo) -> None:
        """Open an event file.

        Args:
            run_info: information about the run.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(run_info.folder / "tensorboard"), purge_step=run_info.step + 1
        )

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log one curve per number.

        Args:
            step: number of the optimizer step.
            values: {name: number}.
        """
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log an image.

        Args:
            step: number of the optimizer step.
            name: name of the image.
            image: uint8 RGB image, shape (H, W, 3).
        """
        self._writer.add_image(name, image, step, dataformats="HWC")

    def finish(self, failed: bool) -> None:
        """Close the event file.

        Args:
            failed: whether the run ended by an error; not used.
        """
        self._writer.close()
