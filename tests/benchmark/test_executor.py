"""Runs as processes: in order, so many at once, and none takes another one down."""

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

DIARY = "diary.txt"


def note(run: BenchmarkRun, *words: object) -> None:
    """Write a line to the diary beside all runs; short appends do not mix."""
    top = next(folder for folder in run.folder.parents if folder.name == "out")
    with (top / DIARY).open("a") as diary:
        diary.write(" ".join(map(str, (*words, run.folder.relative_to(top)))) + "\n")


def diary(plan: BenchmarkPlan) -> list[list[str]]:
    file = plan.runs[0].folder.parents[1] / DIARY
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def diligent(run: BenchmarkRun, device: str | None, threads: int) -> None:
    note(run, "begin", device, threads)
    time.sleep(0.3)
    write_finished_run(run)
    note(run, "end")


def fatal_for_cross_stitch(run: BenchmarkRun, device: str | None, threads: int) -> None:
    if run.experiment.decoder.name == "cross_stitch":
        os.kill(os.getpid(), signal.SIGKILL)
    write_finished_run(run)


def raises_for_references(run: BenchmarkRun, device: str | None, threads: int) -> None:
    note(run, "begin")
    (run.folder).mkdir(parents=True)
    (run.folder / "output.txt").write_text("epoch 1\nerror: no such GPU\n")
    if run.experiment.decoder.name == "single_task" and run.experiment.list_task_names() == [
        "depth"
    ]:
        sys.exit(2)
    write_finished_run(run)


def idle(run: BenchmarkRun, device: str | None, threads: int) -> None:
    write_finished_run(run, complete=False)


def stuck_but_for_seed_0(run: BenchmarkRun, device: str | None, threads: int) -> None:
    if run.experiment.seed:
        note(run, os.getpid())
        time.sleep(600)
    while not diary_of(run):
        time.sleep(0.01)
    write_finished_run(run)


def diary_of(run: BenchmarkRun) -> bool:
    return (run.folder.parents[1] / DIARY).exists()


def go(
    plan: BenchmarkPlan, work: Callable[..., None], workers: int = 1, **more: object
) -> list[str]:
    """Work a plan off -> what was told."""
    told: list[str] = []
    resources = Resources(workers, tuple(more.get("devices", ())))  # type: ignore[arg-type]
    run_benchmark(plan, plan.runs[0].folder.parents[1], LocalLauncher(resources, told.append, work))
    return told


def test_references_first_and_never_more_at_once_than_workers(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"], seeds=[0, 1])
    told = go(plan, diligent, workers=2, devices=("one", "two"))
    lines = diary(plan)
    assert len(told) == 8
    assert told[-1].startswith("[8/8] ")
    begun = [line[-1].split("/")[0] for line in lines if line[0] == "begin"]
    assert sorted(begun[:4]) == ["baselines"] * 4
    assert "baselines" not in begun[4:]
    at_work, most = 0, 0
    for line in lines:
        at_work += 1 if line[0] == "begin" else -1
        most = max(most, at_work)
    assert most == 2
    assert {line[1] for line in lines if line[0] == "begin"} == {"one", "two"}


def test_the_same_call_again_does_nothing_twice(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"])
    go(plan, diligent)
    before = diary(plan)
    told = go(plan, diligent)
    assert diary(plan) == before
    assert all(line.endswith("already finished") for line in told)


def test_new_references_are_compared_with_anew(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"])
    go(plan, diligent)
    write_finished_run(plan.baselines[0])
    go(plan, diligent)
    begun = [line[-1] for line in diary(plan) if line[0] == "begin"]
    assert begun.count("hard_sharing/seed0") == begun.count("cross_stitch/seed0") == 2
    assert len(begun) == 6


def test_one_that_is_killed_ends_alone_and_is_tried_again(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, seeds=[0, 1], decoders=["cross_stitch", "hard_sharing"])
    told = go(plan, fatal_for_cross_stitch)
    assert [load_finished_results(run) is not None for run in plan.runs] == [
        False,
        False,
        True,
        True,
    ]
    assert (
        told[0]
        == "[1/4] cross_stitch, seed 0: FAILED: killed by SIGKILL, possibly because memory was"
        " exhausted"
    )
    assert "SIGKILL" in read_failure(plan.runs[0])
    go(plan, diligent)
    assert all(load_finished_results(run) is not None for run in plan.runs)
    assert read_failure(plan.runs[0]) == ""
    assert {line[-1] for line in diary(plan)} == {"cross_stitch/seed0", "cross_stitch/seed1"}


def test_nothing_starts_without_its_references(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"])
    told = go(plan, raises_for_references)
    assert len(diary(plan)) == 2
    assert told[1].endswith("single task depth, test_resnet, seed 0: FAILED: no such GPU")
    assert "not started" in told[2]
    assert "single task depth" in read_failure(plan.runs[0])
    assert read_failure(plan.baselines[1]).splitlines() == [
        "no such GPU",
        "epoch 1",
        "error: no such GPU",
    ]


def test_a_run_that_stops_early_without_a_word_has_failed(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, decoders=["hard_sharing"])
    assert go(plan, idle) == ["[1/1] hard_sharing, seed 0: FAILED: exit code 0"]


def test_an_interruption_leaves_no_process_behind(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, seeds=[0, 1], decoders=["hard_sharing"])

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    crew = LocalLauncher(Resources(2), interrupt, stuck_but_for_seed_0)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(plan, tmp_path / "out", crew)
    ((pid, _),) = diary(plan)
    assert not is_alive(int(pid))
    assert [load_finished_results(run) is not None for run in plan.runs] == [True, False]


def _middle(file: Path) -> None:
    get_context("fork").Process(target=_orphan, args=(file,)).start()
    time.sleep(600)


def _orphan(file: Path) -> None:
    Thread(target=exit_with_parent, daemon=True).start()
    file.write_text(str(os.getpid()))
    time.sleep(600)


def test_a_run_does_not_outlive_its_suite(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    middle = get_context("fork").Process(target=_middle, args=(file,))
    middle.start()
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = int(file.read_text())
    assert is_alive(pid)
    middle.kill()
    middle.join()
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(pid)


def test_two_at_once_in_a_folder_are_refused(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path)
    with (
        executor._exclusive_lock(tmp_path / "out"),
        pytest.raises(ConfigError, match="another benchmark is running in this folder"),
    ):
        go(plan, diligent)
    assert diary(plan) == []


def test_a_changed_suite_does_not_mix_with_what_was_trained_before(tmp_path: Path) -> None:
    go(make_tiny_plan(tmp_path), diligent)
    changed = make_tiny_plan(tmp_path, overrides=["train.epochs=3", "baselines=auto"])
    with pytest.raises(ConfigError, match="hard_sharing/seed0: holds another experiment"):
        go(changed, diligent)
    assert not changed.baselines[0].folder.exists()


@pytest.mark.parametrize(
    ("workers", "asked", "threads"),
    [(1, "", 8), (2, "", 4), (3, "", 2), (16, "", 1), (2, "1", 1), (2, "64", 4), (2, "no", 4)],
)
def test_cores_are_shared_out(
    workers: int, asked: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert Resources(workers).threads_per_worker == threads
