"""Tests of benchmarks in local processes: order, parallel runs, failures and interruptions."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest

from densemtl.benchmark import executor
from densemtl.benchmark.executor import run_benchmark
from densemtl.benchmark.grid import BenchmarkPlan, BenchmarkRun
from densemtl.benchmark.local_launcher import LocalLauncher, Resources
from densemtl.benchmark.run_status import load_finished_results, read_failure
from densemtl.errors import ConfigError
from densemtl.runtime.process_pool import exit_with_parent
from tests.helpers.fake_benchmark_runs import is_alive, make_tiny_plan, write_finished_run

EVENT_LOG = "events.txt"


def log_event(run: BenchmarkRun, *words: object) -> None:
    """Append a line to the event log next to all runs; short appends are atomic."""
    output = next(folder for folder in run.folder.parents if folder.name == "out")
    with (output / EVENT_LOG).open("a") as log:
        log.write(" ".join(map(str, (*words, run.folder.relative_to(output)))) + "\n")


def read_events(plan: BenchmarkPlan) -> list[list[str]]:
    file = plan.runs[0].folder.parents[1] / EVENT_LOG
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def finish(run: BenchmarkRun, device: str | None, threads: int) -> None:
    log_event(run, "begin", device, threads)
    time.sleep(0.3)
    write_finished_run(run)
    log_event(run, "end")


def kill_cross_stitch(run: BenchmarkRun, device: str | None, threads: int) -> None:
    if run.experiment.decoder.name == "cross_stitch":
        os.kill(os.getpid(), signal.SIGKILL)
    write_finished_run(run)


def fail_depth_baseline(run: BenchmarkRun, device: str | None, threads: int) -> None:
    log_event(run, "begin")
    (run.folder).mkdir(parents=True)
    (run.folder / "output.txt").write_text("epoch 1\nerror: no such GPU\n")
    if run.experiment.decoder.name == "single_task" and run.experiment.list_task_names() == [
        "depth"
    ]:
        sys.exit(2)
    write_finished_run(run)


def stop_early(run: BenchmarkRun, device: str | None, threads: int) -> None:
    write_finished_run(run, complete=False)


def block_except_seed_0(run: BenchmarkRun, device: str | None, threads: int) -> None:
    if run.experiment.seed:
        log_event(run, os.getpid())
        time.sleep(600)
    while not (run.folder.parents[1] / EVENT_LOG).exists():
        time.sleep(0.01)
    write_finished_run(run)


def run_plan(
    plan: BenchmarkPlan,
    work_fn: Callable[..., None],
    workers: int = 1,
    devices: tuple[str, ...] = (),
) -> list[str]:
    """Run a benchmark and return the reported lines."""
    reported: list[str] = []
    launcher = LocalLauncher(Resources(workers, devices), reported.append, work_fn)
    run_benchmark(plan, plan.runs[0].folder.parents[1], launcher)
    return reported


def test_baselines_run_first_and_at_most_workers_in_parallel(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"], seeds=[0, 1])
    reported = run_plan(plan, finish, workers=2, devices=("one", "two"))
    events = read_events(plan)
    assert len(reported) == 8
    assert reported[-1].startswith("[8/8] ")
    started = [event[-1].split("/")[0] for event in events if event[0] == "begin"]
    assert sorted(started[:4]) == ["baselines"] * 4
    assert "baselines" not in started[4:]
    num_active, max_active = 0, 0
    for event in events:
        num_active += 1 if event[0] == "begin" else -1
        max_active = max(max_active, num_active)
    assert max_active == 2
    assert {event[1] for event in events if event[0] == "begin"} == {"one", "two"}


def test_finished_runs_are_not_repeated(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"])
    run_plan(plan, finish)
    before = read_events(plan)
    reported = run_plan(plan, finish)
    assert read_events(plan) == before
    assert all(line.endswith("already finished") for line in reported)


def test_changed_baseline_repeats_the_runs_compared_with_it(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"])
    run_plan(plan, finish)
    write_finished_run(plan.baselines[0])
    run_plan(plan, finish)
    started = [event[-1] for event in read_events(plan) if event[0] == "begin"]
    assert started.count("hard_sharing/seed0") == started.count("cross_stitch/seed0") == 2
    assert len(started) == 6


def test_killed_run_does_not_stop_others_and_is_repeated(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, seeds=[0, 1], decoders=["cross_stitch", "hard_sharing"])
    reported = run_plan(plan, kill_cross_stitch)
    assert [load_finished_results(run) is not None for run in plan.runs] == [
        False,
        False,
        True,
        True,
    ]
    assert (
        reported[0]
        == "[1/4] cross_stitch, seed 0: FAILED: killed by SIGKILL, possibly because memory was"
        " exhausted"
    )
    assert "SIGKILL" in read_failure(plan.runs[0])
    run_plan(plan, finish)
    assert all(load_finished_results(run) is not None for run in plan.runs)
    assert read_failure(plan.runs[0]) == ""
    assert {event[-1] for event in read_events(plan)} == {
        "cross_stitch/seed0",
        "cross_stitch/seed1",
    }


def test_runs_are_not_started_if_a_baseline_failed(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"])
    reported = run_plan(plan, fail_depth_baseline)
    assert len(read_events(plan)) == 2
    assert reported[1].endswith("single task depth, test_resnet, seed 0: FAILED: no such GPU")
    assert "not started" in reported[2]
    assert "single task depth" in read_failure(plan.runs[0])
    assert str(plan.baselines[1].folder / "failed.txt") in reported[2]
    assert read_failure(plan.baselines[1]).splitlines() == [
        "no such GPU",
        "epoch 1",
        "error: no such GPU",
    ]


def test_incomplete_run_without_output_has_failed(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, decoders=["hard_sharing"])
    assert run_plan(plan, stop_early) == ["[1/1] hard_sharing, seed 0: FAILED: exit code 0"]


def test_interruption_stops_all_processes(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, seeds=[0, 1], decoders=["hard_sharing"])

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    launcher = LocalLauncher(Resources(2), interrupt, block_except_seed_0)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan, tmp_path / "out", launcher)
    ((pid, _),) = read_events(plan)
    assert not is_alive(int(pid))
    assert [load_finished_results(run) is not None for run in plan.runs] == [True, False]


def _start_child(file: Path) -> None:
    get_context("fork").Process(target=_wait_for_parent, args=(file,)).start()
    time.sleep(600)


def _wait_for_parent(file: Path) -> None:
    Thread(target=exit_with_parent, daemon=True).start()
    file.write_text(str(os.getpid()))
    time.sleep(600)


def test_run_ends_with_a_killed_benchmark(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    parent = get_context("fork").Process(target=_start_child, args=(file,))
    parent.start()
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = int(file.read_text())
    assert is_alive(pid)
    parent.kill()
    parent.join()
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


def test_second_benchmark_in_the_same_folder_is_rejected(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path)
    with (
        executor._exclusive_lock(tmp_path / "out"),
        pytest.raises(ConfigError, match="another benchmark is running in this folder"),
    ):
        run_plan(plan, finish)
    assert read_events(plan) == []


def test_changed_benchmark_rejects_folders_of_other_experiments(tmp_path: Path) -> None:
    run_plan(make_tiny_plan(tmp_path), finish)
    changed = make_tiny_plan(tmp_path, overrides=["train.epochs=3", "baselines=auto"])
    with pytest.raises(ConfigError, match="hard_sharing/seed0: holds another experiment"):
        run_plan(changed, finish)
    assert not changed.baselines[0].folder.exists()


@pytest.mark.parametrize(
    ("workers", "omp_num_threads", "threads"),
    [(1, "", 8), (2, "", 4), (3, "", 2), (16, "", 1), (2, "1", 1), (2, "64", 4), (2, "no", 4)],
)
def test_threads_per_worker_divide_the_cores(
    workers: int, omp_num_threads: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", omp_num_threads)
    assert Resources(workers).threads_per_worker == threads
