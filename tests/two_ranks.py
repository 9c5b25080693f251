"""Two processes of one job, as torchrun would start them, forked from one that has all imported."""

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

from torch.distributed import TCPStore

TOOLS = Path(__file__).parents[1] / "tools"
PRELOADED = ["densemtl.run", "densemtl.score", "densemtl.tables", "densemtl.predictions.files"]
TIMEOUT = 600
"""Seconds; what hangs on a busy machine and what is slow there are not to be told apart sooner."""

_forking = get_context("forkserver")
_forking.set_forkserver_preload(PRELOADED)


@dataclass
class Rank:
    """A process that was started, the file of what it says, and where ranks find each other."""

    process: BaseProcess
    output: Path
    store: TCPStore

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


def start(folder: Path, job: Callable[..., None], *arguments: Any) -> list[Rank]:
    """Two ranks of `job(*arguments)`, with their environment set."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = []
    for number in range(2):
        output = folder / f"rank{number}.txt"
        process = _forking.Process(target=_run, args=(number, store.port, output, job, *arguments))
        process.start()
        ranks.append(Rank(process, output, store))
    return ranks


def tool(folder: Path, name: str, *arguments: object) -> list[Rank]:
    """Two ranks of a tool, run as from a shell in `folder`."""
    return start(folder, _tool, folder, name, [str(argument) for argument in arguments])


def both(ranks: list[Rank]) -> str:
    """Wait for two that must end well; what both said."""
    statuses = [rank.wait() for rank in ranks]
    said = "".join(rank.said() for rank in ranks)
    assert statuses == [0, 0], said
    return said


def _run(number: int, port: int, output: Path, job: Callable[..., None], *arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }
    file = output.open("w", buffering=1)
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        job(*arguments)


def _tool(folder: Path, name: str, arguments: list[str]) -> None:
    os.chdir(folder)
    sys.argv = [name, *arguments]
    runpy.run_path(str(TOOLS / name), run_name="__main__")
