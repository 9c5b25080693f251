"""What a run of a suite has left in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from densemtl.benchmark.grid import BenchmarkRun
from densemtl.config.experiment import CONFIG, parse_saved_experiment
from densemtl.errors import ConfigError, ResultsError
from densemtl.results.results import Results, load_results

OUTPUT_NAME = "output.txt"
FAILURE_NAME = "failed.txt"
MEMORY_NAME = "memory.json"
MAX_FAILURE_LINES = 12


def load_finished_results(run: BenchmarkRun) -> Results | None:
    """The results of a run that has come to its end, compared with the references of today."""
    try:
        results = load_results(run.folder)
        baselines = run.experiment.baselines
        folders = baselines if isinstance(baselines, dict) else {}
        weights = {task: load_results(folder).weights_hash for task, folder in folders.items()}
    except ResultsError:
        return None
    compared = {task: baseline.weights_hash for task, baseline in results.baselines.items()}
    same = results.config_hash == run.experiment.compute_config_hash()
    return results if results.complete and same and compared == weights else None


def check_same_experiment(run: BenchmarkRun) -> None:
    """See that a folder does not hold another experiment.

    Raises:
        ConfigError: it does.
    """
    file = run.folder / CONFIG
    if not file.exists():
        return
    theirs = parse_saved_experiment(file.read_text(encoding="utf-8", errors="replace"), file)
    if theirs.compute_config_hash() != run.experiment.compute_config_hash():
        raise ConfigError(
            f"{run.folder}: holds another experiment, of before the suite was changed: choose"
            f" another --output, or remove the folder"
        )


def write_failure(run: BenchmarkRun, reason: str) -> None:
    """Keep why a run failed, with the last lines that it said."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lines = [reason, *_read_output(run)[-MAX_FAILURE_LINES:]]
    (run.folder / FAILURE_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_last_output_line(run: BenchmarkRun) -> str:
    """The last line that a run said, empty if there is none."""
    return next((line.strip() for line in reversed(_read_output(run)) if line.strip()), "")


def _read_output(run: BenchmarkRun) -> list[str]:
    file = run.folder / OUTPUT_NAME
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def clear_failure(run: BenchmarkRun) -> None:
    """A run is tried again."""
    for name in (FAILURE_NAME, OUTPUT_NAME):
        (run.folder / name).unlink(missing_ok=True)


def read_failure(run: BenchmarkRun) -> str:
    """Why a run failed; empty if it did not."""
    file = run.folder / FAILURE_NAME
    return file.read_text(encoding="utf-8") if file.exists() else ""


def read_memory(folder: Path) -> dict[str, float]:
    """{"peak_rss_mib", and "peak_cuda_mib" on a GPU: MiB}, empty if it is not known."""
    try:
        values: dict[str, float] = json.loads((folder / MEMORY_NAME).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return values
