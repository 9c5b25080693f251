"""One run of a suite, in a process of its own."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from threading import Thread

import cv2
import torch

from densemtl import cli
from densemtl.io.atomic import write_json
from densemtl.benchmark.run_status import MEMORY, OUTPUT, read_memory
from densemtl.config.experiment import Experiment
from densemtl.runtime.process_pool import end_with_parent
from densemtl.runs.train_run import run

MEBI = 2**20


def work(experiment: Experiment, folder: Path, device: str | None, threads: int) -> None:
    """Train, with everything that is said going to a file; ends the process with an exit code.

    Args:
        experiment: what to train, or to go on with.
        folder: of the run.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        threads: that it may compute with.
    """
    _write_to(folder / OUTPUT)
    # A suite that was killed must not leave runs behind that its next start would meet.
    Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        cli.run(lambda: _train(experiment, folder, device))
    finally:
        _record_memory(folder)


def _train(experiment: Experiment, folder: Path, device: str | None) -> None:
    run(experiment, folder, device)


def _write_to(file: Path) -> None:
    """Let standard output and errors go to a file, those of libraries in C too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    os.close(handle)


def _record_memory(folder: Path) -> None:
    """The most memory that this run has had in any of its processes so far."""
    before, peaks = read_memory(folder), {"peak_rss_mib": _peak_rss()}
    if torch.cuda.is_initialized():
        peaks["peak_cuda_mib"] = round(torch.cuda.max_memory_allocated() / MEBI, 1)
    write_json(folder / MEMORY, {key: max(peak, before.get(key, 0)) for key, peak in peaks.items()})


def _peak_rss() -> float:
    """MiB of resident memory: libraries and cached samples too, loader workers not."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBI, 1)
