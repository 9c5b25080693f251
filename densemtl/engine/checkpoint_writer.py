"""Writing of checkpoints, in a thread while the training continues if configured."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from densemtl.distributed.collectives import is_main_process
from densemtl.engine.checkpoint import write_checkpoint
from densemtl.engine.train_state import TrainState
from densemtl.engine.weights_file import SavedWeights
from densemtl.errors import UserError
from densemtl.runtime.rng_state import is_cuda_initialized

_make_event: Callable[[], torch.cuda.Event] = torch.cuda.Event
"""The constructor, which torch leaves without annotations."""


class CheckpointWriter:
    """Writer of the checkpoint `last/` of a run.

    In the background, the training stops only until the state is copied to the CPU (pinned memory
    if it is on a GPU, and then without waiting for it). One thread then writes the copy.
    At most one checkpoint is written at a time, so that the copies need the memory of one. Each
    file is as complete and as atomic as without a thread.

    Args:
        in_background: whether checkpoints are written in a thread.

    Example:
        >>> writer = CheckpointWriter(in_background=True)
        >>> with writer.running(print):
        ...     writer.check()  # before each step; raises the error of a failed write
    """

    def __init__(self, in_background: bool = False) -> None:
        self._in_background = in_background
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: TrainState, folder: Path, config_yaml: str) -> float:
        """Save a checkpoint, or start to write it; all ranks must call this method.

        Args:
            state: the state of training.
            folder: the run folder.
            config_yaml: resolved configuration (YAML).

        Returns:
            The time that the training waited, in seconds.

        Raises:
            OutputError: if this checkpoint, or in the background the previous one, cannot be
                written.
        """
        started = time.monotonic()
        if self._in_background:
            self.wait()
            weights, content = state.collect(config_yaml, snapshot=True)
            if is_main_process():
                self._start(folder, weights, content)
        else:
            state.save(folder, config_yaml)
        return time.monotonic() - started

    def check(self) -> None:
        """Raise the error of a write that has failed meanwhile.

        Raises:
            OutputError: if a checkpoint could not be written.
        """
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint is written.

        Raises:
            OutputError: if it cannot be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    @contextmanager
    def running(self, report: Callable[[str], None]) -> Iterator[None]:
        """Create the context in which a run may save checkpoints.

        At its end and on SIGTERM, the checkpoint that is being written is completed.

        Args:
            report: function that is called with the error of a failed write if the run ends by
                another exception.

        Yields:
            Nothing.

        Raises:
            OutputError: if the last checkpoint cannot be written.
        """
        try:
            with self._waiting_on_sigterm():
                yield
        except BaseException:
            try:
                self.wait()
            except UserError as error:
                report(f"error: {error}")
            raise
        self.wait()

    def _start(self, folder: Path, weights: SavedWeights, content: dict[str, Any]) -> None:
        copied = None
        if is_cuda_initialized():
            copied = _make_event()
            copied.record()
        arguments = (folder, weights, content, copied)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint")
        self._thread.start()

    def _write(
        self,
        folder: Path,
        weights: SavedWeights,
        content: dict[str, Any],
        copied: torch.cuda.Event | None,
    ) -> None:
        """Write a checkpoint when its tensors are copied, and store any error."""
        try:
            if copied is not None:
                copied.synchronize()
            write_checkpoint(folder, weights, content)
        except BaseException as error:
            self._error = error

    @contextmanager
    def _waiting_on_sigterm(self) -> Iterator[None]:
        """Complete the current write before SIGTERM ends the process, unless it is handled."""
        is_main_thread = threading.current_thread() is threading.main_thread()
        if not (self._in_background and is_main_thread) or (
            signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        ):
            yield
            return

        def finish(*_: object) -> None:
            if self._thread is not None:
                self._thread.join()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

        signal.signal(signal.SIGTERM, finish)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
