"""What a run of a suite has left in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from densemtl.benchmark.grid import Run
from densemtl.config.experiment import CONFIG, read_saved
from densemtl.errors import ConfigError, ResultsError
from densemtl.results.results import Results, load_results

OUTPUT = "output.txt"
FAILED = "failed.txt"
MEMORY = "memory.json"
LAST_LINES = 12


def finished(run: Run) -> Results | None:
    """The results of a run that has come to its end, compared with the references of today."""
    try:
        results = load_results(run.folder)
        baselines = run.experiment.baselines
        folders = baselines if isinstance(baselines, dict) else {}
        weights = {task: load_results(folder).weights for task, folder in folders.items()}
    except ResultsError:
        return None
    compared = {task: baseline.weights for task, baseline in results.baselines.items()}
    same = results.fingerprint == run.experiment.fingerprint()
    return results if results.complete and same and compared == weights else None


def refuse_others(run: Run) -> None:
    """See that a folder does not hold another experiment.

    Raises:
        ConfigError: it does.
    """
    file = run.folder / CONFIG
    if not file.exists():
        return
    theirs = read_saved(file.read_text(encoding="utf-8", errors="replace"), file)
    if theirs.fingerprint() != run.experiment.fingerprint():
        raise ConfigError(
            f"{run.folder}: holds another experiment, of before the suite was changed: choose"
            f" another --output, or remove the folder"
        )


def write_failure(run: Run, reason: str) -> None:
    """Keep why a run failed, with the last lines that it said."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lines = [reason, *_said(run)[-LAST_LINES:]]
    (run.folder / FAILED).write_text("\n".join(lines) + "\n", encoding="utf-8")


def last_words(run: Run) -> str:
    """The last line that a run said, empty if there is none."""
    return next((line.strip() for line in reversed(_said(run)) if line.strip()), "")


def _said(run: Run) -> list[str]:
    file = run.folder / OUTPUT
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def forget_failure(run: Run) -> None:
    """A run is tried again."""
    for name in (FAILED, OUTPUT):
        (run.folder / name).unlink(missing_ok=True)


def read_failure(run: Run) -> str:
    """Why a run failed; empty if it did not."""
    file = run.folder / FAILED
    return file.read_text(encoding="utf-8") if file.exists() else ""


def read_memory(folder: Path) -> dict[str, float]:
    """{"peak_rss_mib", and "peak_cuda_mib" on a GPU: MiB}, empty if it is not known."""
    try:
        values: dict[str, float] = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return values
