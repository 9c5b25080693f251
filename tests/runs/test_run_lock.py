"""Tests of the lock of a run folder, with a second process."""

from __future__ import annotations

import multiprocessing
import os
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from densemtl.errors import CheckpointError, OutputError
from densemtl.runs import run_lock
from densemtl.runs.run_lock import LOCK_FILE, lock_run_dir
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment


def list_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def hold_lock(folder: Path, locked: Any, release: Any) -> None:
    with lock_run_dir(folder):
        locked.set()
        release.wait(60)


@pytest.fixture
def start_holder():
    """Start a process that holds the lock of a folder until it is released or killed."""
    context, started = multiprocessing.get_context("fork"), []

    def start(folder: Path) -> tuple[BaseProcess, Any]:
        locked, release = context.Event(), context.Event()
        process = context.Process(target=hold_lock, args=(folder, locked, release))
        process.start()
        started.append(process)
        assert locked.wait(60)
        return process, release

    yield start
    for process in started:
        process.kill()
        process.join()


def test_second_run_names_the_process_and_the_host(tmp_path, start_holder):
    folder = tmp_path / "run"
    process, _ = start_holder(folder)
    with pytest.raises(CheckpointError) as error:
        train_experiment(make_tiny_experiment(), folder, "cpu")
    owner = f"process {process.pid} on {socket.gethostname()}"
    assert str(error.value).startswith(f"{folder}: {owner} is training in this folder")
    assert list_names(folder) == [LOCK_FILE]


def test_lock_of_a_killed_process_is_free(tmp_path, start_holder):
    process, _ = start_holder(tmp_path / "run")
    process.kill()
    process.join()
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with lock_run_dir(tmp_path / "run"):
        text = (tmp_path / "run" / LOCK_FILE).read_text()
    assert text == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_killed_run_is_free_although_its_worker_processes_live(tmp_path, start_holder):
    """A worker process inherits the open file, but not the lock."""
    with lock_run_dir(tmp_path / "run"):
        worker = multiprocessing.get_context("fork").Process(target=Timer(60, print).run)
        worker.start()
    holder, release = start_holder(tmp_path / "run")
    release.set()
    holder.join(60)
    assert holder.exitcode == 0
    worker.kill()
    worker.join()


def test_waiting_process_continues_after_the_other(tmp_path, start_holder, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "POLL_SECONDS", 0.01)
    process, release = start_holder(tmp_path)
    Timer(0.1, release.set).start()
    with lock_run_dir(tmp_path, wait=True):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()
    assert capsys.readouterr().out.count(f"waiting for process {process.pid} on ") == 1


def test_lock_leaves_nothing_behind(tmp_path):
    with lock_run_dir(tmp_path / "a" / "b"):
        assert list_names(tmp_path / "a" / "b") == [LOCK_FILE]
    assert list_names(tmp_path) == []
    with lock_run_dir(tmp_path / "a"):
        (tmp_path / "a" / "file").touch()
    assert list_names(tmp_path / "a") == ["file"]


def test_folder_that_cannot_be_written_gives_one_line(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="cannot be written"), lock_run_dir(folder):
            pass


def test_only_the_main_process_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "is_main_process", lambda: False)
    with lock_run_dir(tmp_path):
        assert list_names(tmp_path) == []
