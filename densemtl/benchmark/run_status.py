"""Status of a run in a benchmark: its results, failure, output and memory files."""

from __future__ import annotations

import json
from pathlib import Path

from densemtl.benchmark.grid import BenchmarkRun
from densemtl.config.experiment import parse_saved_experiment
from densemtl.config.input_paths import CONFIG
from densemtl.errors import ConfigError, ResultsError
from densemtl.results.results import Results, load_results

OUTPUT_NAME = "output.txt"
"""Standard output and errors of the last attempt."""

FAILURE_NAME = "failed.txt"
"""Reason of the last failure."""

MEMORY_NAME = "memory.json"
"""Peak memory over all attempts."""

MAX_FAILURE_LINES = 12
"""Number of lines of output that are stored with a failure."""


def load_finished_results(run: BenchmarkRun) -> Results | None:
    """Load the results of a finished run.

    Args:
        run: a run of a benchmark.

    Returns:
        The results; None if the run is not finished, belongs to another configuration, or was
        compared with other weights than its baselines have now.
    """
    try:
        results = load_results(run.folder)
        baselines = run.experiment.baselines
        folders = baselines if isinstance(baselines, dict) else {}
        weights = {task: load_results(folder).weights_hash for task, folder in folders.items()}
    except ResultsError:
        return None
    compared = {task: baseline.weights_hash for task, baseline in results.baselines.items()}
    same = results.config_hash in run.experiment.list_config_hashes()
    return results if results.complete and same and compared == weights else None


def check_same_experiment(run: BenchmarkRun) -> None:
    """Check that the folder of a run contains no other experiment.

    Args:
        run: a run of a benchmark, whose folder need not exist.

    Raises:
        ConfigError: if the saved configuration differs from that of the run.
    """
    file = run.folder / CONFIG
    if not file.exists():
        return
    theirs = parse_saved_experiment(file.read_text(encoding="utf-8", errors="replace"), file)
    if theirs.compute_config_hash() not in run.experiment.list_config_hashes():
        raise ConfigError(
            f"{run.folder}: holds another experiment, from before the benchmark configuration was"
            f" changed (choose another --output, or remove the folder)"
        )


def write_failure(run: BenchmarkRun, reason: str) -> None:
    """Save the reason of a failure, followed by the last lines of the output.

    Args:
        run: the run that failed.
        reason: reason in one line.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    lines = [reason, *_read_output(run)[-MAX_FAILURE_LINES:]]
    (run.folder / FAILURE_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_last_output_line(run: BenchmarkRun) -> str:
    """Return the last nonempty line of a run's output; empty if there is none."""
    return next((line.strip() for line in reversed(_read_output(run)) if line.strip()), "")


def _read_output(run: BenchmarkRun) -> list[str]:
    file = run.folder / OUTPUT_NAME
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def clear_failure(run: BenchmarkRun) -> None:
    """Remove the failure and the output of a run before another attempt."""
    for name in (FAILURE_NAME, OUTPUT_NAME):
        (run.folder / name).unlink(missing_ok=True)


def read_failure(run: BenchmarkRun) -> str:
    """Return the saved failure of a run; empty if there is none."""
    file = run.folder / FAILURE_NAME
    return file.read_text(encoding="utf-8") if file.exists() else ""


def read_memory(folder: Path) -> dict[str, float]:
    """Read the peak memory of a run.

    Args:
        folder: run folder.

    Returns:
        "peak_rss_mib" and, for runs on a GPU, "peak_cuda_mib", in MiB; empty if unknown.
    """
    try:
        values: dict[str, float] = json.loads((folder / MEMORY_NAME).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return values
