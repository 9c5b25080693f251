"""Tools in processes that are forked from a process in which all libraries are imported."""

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
    *(
        "tests.helpers.collector",
        "tests.helpers.fast_runs",
        "densemtl.runs.train_run",
        "densemtl.runs.evaluate_run",
    ),
    "densemtl.results.tables",
    "densemtl.evaluation.prediction_files",
]
TIMEOUT_SECONDS = 600
"""Time limit of a process; long, because processes are slow on a busy machine."""

_forkserver = get_context("forkserver")
_forkserver.set_forkserver_preload(PRELOADED_MODULES)


@dataclass
class ForkedProcess:
    """Started process.

    Attributes:
        process: the process.
        output: file with its standard output and standard error.
    """

    process: BaseProcess
    output: Path

    def wait(self) -> int:
        """Wait for the end of the process and return its exit status."""
        self.process.join(TIMEOUT_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"no end after {TIMEOUT_SECONDS} s: {self.read_output()}")
        return self.process.exitcode

    def read_output(self) -> str:
        """Return standard output and standard error."""
        return self.output.read_text() if self.output.exists() else ""

    def kill_when_exists(self, file: Path) -> None:
        """Kill the process by SIGKILL as soon as a file exists."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not file.exists() and self.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert file.exists(), self.read_output()
        os.kill(self.process.pid or 0, signal.SIGKILL)


def start_forked(
    output: Path, environment: dict[str, str], function: Callable[..., None], *arguments: Any
) -> ForkedProcess:
    """Start `function(*arguments)` in a forked process on the CPU with one thread."""
    process = _forkserver.Process(
        target=_run_function, args=(output, environment, function, *arguments)
    )
    process.start()
    return ForkedProcess(process, output)


def start_tool(folder: Path, name: str, *arguments: object) -> ForkedProcess:
    """Start a tool as in a shell whose working directory is `folder`."""
    return start_forked(
        folder / "tool_output.txt", {}, run_tool, folder, name, *map(str, arguments)
    )


def run_tool(folder: Path, name: str, *arguments: str) -> None:
    """Run a tool in this process, in the working directory `folder`."""
    os.chdir(folder)
    sys.argv = [name, *arguments]
    runpy.run_path(str(TOOLS_DIR / name), run_name="__main__")


def _run_function(
    output: Path, environment: dict[str, str], function: Callable[..., None], *arguments: Any
) -> None:
    import torch

    from tests.helpers import fast_runs

    fast_runs.skip_figures()
    torch.set_num_threads(1)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", **environment}
    file = output.open("w", buffering=1)
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        function(*arguments)
