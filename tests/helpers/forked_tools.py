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

TOOLS_DIR = Path(__file__).parents[2] / "tools"
PRELOADED_MODULES = [
    *("tests.helpers.collector", "densemtl.runs.train_run", "densemtl.runs.evaluate_run"),
    "densemtl.results.tables",
    "densemtl.evaluation.prediction_files",
]
TIMEOUT_SECONDS = 600
"""Seconds; what hangs on a busy machine and what is slow there are not to be told apart sooner."""

_forkserver = get_context("forkserver")
_forkserver.set_forkserver_preload(PRELOADED_MODULES)


@dataclass
class ForkedProcess:
    """A process that was started, and the file of what it says."""

    process: BaseProcess
    output: Path

    def wait(self) -> int:
        """Its exit status."""
        self.process.join(TIMEOUT_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it hangs: {self.read_output()}")
        return self.process.exitcode

    def read_output(self) -> str:
        """Standard output and error."""
        return self.output.read_text() if self.output.exists() else ""

    def kill_when_exists(self, file: Path) -> None:
        """SIGKILL as soon as a file is there."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not file.exists() and self.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert file.exists(), self.read_output()
        os.kill(self.process.pid or 0, signal.SIGKILL)


def start_forked(
    output: Path, environment: dict[str, str], function: Callable[..., None], *arguments: Any
) -> ForkedProcess:
    """Start `function(*arguments)` in a forked process, on the CPU and one thread."""
    process = _forkserver.Process(
        target=_run_function, args=(output, environment, function, *arguments)
    )
    process.start()
    return ForkedProcess(process, output)


def start_tool(folder: Path, name: str, *arguments: object) -> ForkedProcess:
    """Start a tool as from a shell in `folder`."""
    return start_forked(folder / "said.txt", {}, run_tool, folder, name, *map(str, arguments))


def run_tool(folder: Path, name: str, *arguments: str) -> None:
    """What is run in the process."""
    os.chdir(folder)
    sys.argv = [name, *arguments]
    runpy.run_path(str(TOOLS_DIR / name), run_name="__main__")


def _run_function(
    output: Path, environment: dict[str, str], function: Callable[..., None], *arguments: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", **environment}
    file = output.open("w", buffering=1)
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        function(*arguments)
