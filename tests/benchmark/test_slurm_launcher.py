"""Runs as jobs of a scheduler: submitit's local one, with real processes."""

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


def by_architecture(run: BenchmarkRun, device: str | None, threads: int) -> None:
    """One is finished, one says what is wrong."""
    if run.experiment.decoder.name == "cross_stitch":
        run.folder.mkdir(parents=True)
        (run.folder / "output.txt").write_text("error: no such GPU\n")
        sys.exit(2)
    write_finished_run(run)
    sys.exit(0)


def idle(run: BenchmarkRun, device: str | None, threads: int) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def idle_at_first(run: BenchmarkRun, device: str | None, threads: int) -> None:
    if run.folder.exists():
        write_finished_run(run)
        sys.exit(0)
    idle(run, device, threads)


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find the functions of this file."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


@pytest.fixture
def heeded() -> Iterator[None]:
    """Jobs heed Ctrl-C even where a shell runs all of this in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def go(plan: BenchmarkPlan, work: Any, output: Path) -> list[str]:
    told: list[str] = []
    options = {"timeout_min": 5, "cpus_per_task": 1}
    jobs = SlurmLauncher(
        "local", options, output, report=told.append, work_fn=work, poll_seconds=0.1
    )
    run_benchmark(plan, output, jobs)
    return told


def test_what_fails_ends_alone_and_only_what_is_lacking_is_submitted_again(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path)
    assert len(go(plan, by_architecture, tmp_path / "out")) == 2
    hard_sharing, cross_stitch = plan.runs
    assert load_finished_results(hard_sharing) is not None
    assert read_failure(hard_sharing) == ""
    assert read_failure(cross_stitch).startswith("no such GPU")
    told = go(plan, by_architecture, tmp_path / "out")
    assert "hard_sharing, seed 0: already finished" in told[0]
    assert len(list((tmp_path / "out" / LOG_FOLDER).glob("*_submitted.pkl"))) == 3


class Interrupted(SlurmLauncher):
    """Whoever waits presses Ctrl-C once a file is there."""

    file: Path

    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        deadline = time.monotonic() + 120
        while not (self.file.exists() and self.file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise KeyboardInterrupt


def test_an_interruption_cancels_the_jobs(tmp_path: Path, heeded: None) -> None:
    plan = make_tiny_plan(tmp_path, decoders=["hard_sharing"])
    jobs = Interrupted("local", {"timeout_min": 5}, tmp_path / "out", work_fn=idle)
    jobs.file = plan.runs[0].folder / "pid"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan, tmp_path / "out", jobs)
    pid, deadline = int(jobs.file.read_text()), time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


class RunningOut(SlurmLauncher):
    """Time is up, as the scheduler tells the job, once a file is there."""

    file: Path

    def wait(self) -> list[tuple[BenchmarkRun, str]]:
        deadline = time.monotonic() + 120
        while not (self.file.exists() and self.file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(int(self.file.read_text()), signal.SIGUSR2)
        return super().wait()


def test_a_job_whose_time_is_up_goes_on(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, decoders=["hard_sharing"])
    jobs = RunningOut(
        "local", {"timeout_min": 5}, tmp_path / "out", work_fn=idle_at_first, poll_seconds=0.1
    )
    jobs.file = plan.runs[0].folder / "pid"
    assert run_benchmark(plan, tmp_path / "out", jobs) == []
    assert load_finished_results(plan.runs[0]) is not None
    assert "Requeued job" in "".join(
        log.read_text() for log in (tmp_path / "out" / LOG_FOLDER).glob("*_log.*")
    )


def test_what_submitit_does_not_know_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--job: .*timeout_mins") as caught:
        SlurmLauncher("local", {"timeout_mins": 5}, tmp_path)
    assert "\n" not in str(caught.value)


def test_no_scheduler_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--submit slurm: "):
        SlurmLauncher("slurm", {}, tmp_path)


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    jobs = importlib.import_module("densemtl.benchmark.slurm_launcher")
    with pytest.raises(UserError, match=r"densemtl\[cluster\]"):
        jobs.SlurmLauncher("local", {}, tmp_path)
