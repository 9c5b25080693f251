"""Tests of benchmarks as jobs of submitit's local scheduler, with real processes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from densemtl.benchmark.executor import run_benchmark
from densemtl.benchmark.grid import BenchmarkPlan, BenchmarkRun
from densemtl.benchmark.run_status import load_finished_results, read_failure
from densemtl.benchmark.slurm_launcher import LOG_FOLDER, SlurmLauncher
from densemtl.errors import ConfigError, UserError
from tests.helpers.fake_benchmark_runs import is_alive, make_tiny_plan, write_finished_run

pytest.importorskip("submitit", reason='needs pip install "densemtl[cluster]"')


def fail_cross_stitch(run: BenchmarkRun, device: str | None, threads: int) -> None:
    """Finish a run, or fail with a message if its decoder is cross_stitch."""
    if run.experiment.decoder.name == "cross_stitch":
        run.folder.mkdir(parents=True)
        (run.folder / "output.txt").write_text("error: no such GPU\n")
        sys.exit(2)
    write_finished_run(run)
    sys.exit(0)


def block(run: BenchmarkRun, device: str | None, threads: int) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def block_on_first_attempt(run: BenchmarkRun, device: str | None, threads: int) -> None:
    if run.folder.exists():
        write_finished_run(run)
        sys.exit(0)
    block(run, device, threads)


@pytest.fixture(autouse=True)
def python_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set PYTHONPATH so that jobs can import the functions of this file."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """Restore the default handler of Ctrl-C, which shells disable for background processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run_plan(plan: BenchmarkPlan, work_fn: Any, output: Path) -> list[str]:
    """Run a benchmark and return the reported lines."""
    reported: list[str] = []
    options = {"timeout_min": 5, "cpus_per_task": 1}
    launcher = SlurmLauncher(
        "local", options, output, report=reported.append, work_fn=work_fn, poll_seconds=0.1
    )
    run_benchmark(plan, output, launcher)
    return reported


def test_failing_run_does_not_stop_others_and_only_it_is_resubmitted(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path)
    assert len(run_plan(plan, fail_cross_stitch, tmp_path / "out")) == 2
    hard_sharing, cross_stitch = plan.runs
    assert load_finished_results(hard_sharing) is not None
    assert read_failure(hard_sharing) == ""
    assert read_failure(cross_stitch).startswith("no such GPU")
    reported = run_plan(plan, fail_cross_stitch, tmp_path / "out")
    assert "hard_sharing, seed 0: already finished" in reported[0]
    assert len(list((tmp_path / "out" / LOG_FOLDER).glob("*_submitted.pkl"))) == 3


class InterruptedLauncher(SlurmLauncher):
    """Launcher that raises KeyboardInterrupt while waiting, once a file exists."""

    file: Path

    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        deadline = time.monotonic() + 120
        while not (self.file.exists() and self.file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise KeyboardInterrupt


def test_interruption_cancels_the_jobs(tmp_path: Path, default_sigint: None) -> None:
    plan = make_tiny_plan(tmp_path, decoders=["hard_sharing"])
    launcher = InterruptedLauncher("local", {"timeout_min": 5}, tmp_path / "out", work_fn=block)
    launcher.file = plan.runs[0].folder / "pid"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan, tmp_path / "out", launcher)
    pid, deadline = int(launcher.file.read_text()), time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


class TimeoutLauncher(SlurmLauncher):
    """Launcher that sends the signal of a time limit to the job, once a file exists."""

    file: Path

    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        deadline = time.monotonic() + 120
        while not (self.file.exists() and self.file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(int(self.file.read_text()), signal.SIGUSR2)
        return super().wait()


def test_job_at_its_time_limit_is_requeued(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, decoders=["hard_sharing"])
    launcher = TimeoutLauncher(
        "local",
        {"timeout_min": 5},
        tmp_path / "out",
        work_fn=block_on_first_attempt,
        poll_seconds=0.1,
    )
    launcher.file = plan.runs[0].folder / "pid"
    assert run_benchmark(plan, tmp_path / "out", launcher) == []
    assert load_finished_results(plan.runs[0]) is not None
    assert "Requeued job" in "".join(
        log.read_text() for log in (tmp_path / "out" / LOG_FOLDER).glob("*_log.*")
    )


def test_unknown_option_of_submitit_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--job: .*timeout_mins") as caught:
        SlurmLauncher("local", {"timeout_mins": 5}, tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_scheduler_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--submit slurm: "):
        SlurmLauncher("slurm", {}, tmp_path)


def test_missing_submitit_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    module = importlib.import_module("densemtl.benchmark.slurm_launcher")
    with pytest.raises(UserError, match=r"densemtl\[cluster\]"):
        module.SlurmLauncher("local", {}, tmp_path)
