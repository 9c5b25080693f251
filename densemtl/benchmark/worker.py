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
from densemtl.benchmark.run_status import MEMORY_NAME, OUTPUT_NAME, read_memory
from densemtl.config.experiment import ExperimentConfig
from densemtl.io.atomic import write_json
from densemtl.runs.train_run import train_experiment
from densemtl.runtime.process_pool import exit_with_parent

BYTES_PER_MIB = 2**20


def run_worker(
    experiment: ExperimentConfig, folder: Path, device: str | None, num_threads: int
) -> None:
    """Train, with everything that is said going to a file; ends the process with an exit code.

    Args:
        experiment: what to train, or to go on with.
        folder: of the run.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        num_threads: that it may compute with.
    """
    _redirect_output(folder / OUTPUT_NAME)
    # A suite that was killed must not leave runs behind that its next start would meet.
    Thread(target=exit_with_parent, daemon=True).start()
    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)
    try:
        cli.run_main(lambda: _train(experiment, folder, device))
    finally:
        _record_memory(folder)


def _train(experiment: ExperimentConfig, folder: Path, device: str | None) -> None:
    train_experiment(experiment, folder, device)


def _redirect_output(file: Path) -> None:
    """Let standard output and errors go to a file, those of libraries in C too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    os.close(handle)


def _record_memory(folder: Path) -> None:
    """The most memory that this run has had in any of its processes so far."""
    before, peaks = read_memory(folder), {"peak_rss_mib": _get_peak_rss()}
    if torch.cuda.is_initialized():
        peaks["peak_cuda_mib"] = round(torch.cuda.max_memory_allocated() / BYTES_PER_MIB, 1)
    write_json(
        folder / MEMORY_NAME, {key: max(peak, before.get(key, 0)) for key, peak in peaks.items()}
    )


def _get_peak_rss() -> float:
    """MiB of resident memory: libraries and cached samples too, loader workers not."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MIB, 1)
