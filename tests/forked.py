"""Processes as a shell starts them, but forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parents[1] / "tools"
PRELOADED = [
    *("collector", "densemtl.run", "densemtl.score", "densemtl.tables"),
    "densemtl.predictions.files",
]
TIMEOUT = 600
"""Seconds; what hangs on a busy machine and what is slow there are not to be told apart sooner."""

_forking = get_context("forkserver")
_forking.set_forkserver_preload(PRELOADED)


@dataclass
class Forked:
    """A process that was started, and the file of what it says."""

    process: BaseProcess
    output: Path

    def wait(self) -> int:
        """Its exit status."""
        self.process.join(TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it hangs: {self.said()}")
        return self.process.exitcode

    def said(self) -> str:
        """Standard output and error."""
        return self.output.read_text() if self.output.exists() else ""

    def kill_when(self, file: Path) -> None:
        """SIGKILL as soon as a file is there."""
        deadline = time.monotonic() + TIMEOUT
        while not file.exists() and self.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert file.exists(), self.said()
        os.kill(self.process.pid or 0, signal.SIGKILL)


def fork(
    output: Path, environment: dict[str, str], job: Callable[..., None], *arguments: Any
) -> Forked:
    """Start `job(*arguments)`, on the CPU and one thread."""
    process = _forking.Process(target=_run, args=(output, environment, job, *arguments))
    process.start()
    return Forked(process, output)


def tool(folder: Path, name: str, *arguments: object) -> Forked:
    """Start a tool as from a shell in `folder`."""
    return fork(folder / "said.txt", {}, run_tool, folder, name, *map(str, arguments))


def run_tool(folder: Path, name: str, *arguments: str) -> None:
    """What is run in the process."""
    os.chdir(folder)
    sys.argv = [name, *arguments]
    runpy.run_path(str(TOOLS / name), run_name="__main__")


def _run(
    output: Path, environment: dict[str, str], job: Callable[..., None], *arguments: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", **environment}
    file = output.open("w", buffering=1)
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        job(*arguments)
