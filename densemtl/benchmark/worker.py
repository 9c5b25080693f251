"""Worker process that trains one run of a benchmark."""

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
    """Train or resume a run, with all output redirected to a file in its folder.

    Errors end the process with a nonzero exit code. The peak memory is recorded in any case.

    Args:
        experiment: configuration of the run.
        folder: run folder.
        device: "cpu", "cuda" or similar; None uses a GPU if there is one.
        num_threads: number of CPU threads for computations.
    """
    _redirect_output(folder / OUTPUT_NAME)
    # Runs must end with a killed benchmark, as they would conflict with its next start.
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
    """Redirect standard output and errors to a file, including those of C libraries."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(handle, stream.fileno())
    os.close(handle)


def _record_memory(folder: Path) -> None:
    """Write the peak memory over all processes that have worked on this run so far."""
    before, peaks = read_memory(folder), {"peak_rss_mib": _get_peak_rss()}
    peak_cuda = torch.cuda.max_memory_allocated()  # 0 if no GPU was used
    if peak_cuda:
        peaks["peak_cuda_mib"] = round(peak_cuda / BYTES_PER_MIB, 1)
    write_json(
        folder / MEMORY_NAME, {key: max(peak, before.get(key, 0)) for key, peak in peaks.items()}
    )


def _get_peak_rss() -> float:
    """Return the peak resident memory of this process in MiB, without data loader workers."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MIB, 1)
