"""Tests of the log of a run, including runs that were killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from densemtl.engine.run_log import RunLog, open_log, read_log
from densemtl.errors import OutputError
from densemtl.trackers.base import RunInfo
from densemtl.trackers.tensorboard import TensorBoard


def read_steps(folder) -> list[tuple[int, str]]:
    return [(line["step"], line["kind"]) for line in read_log(folder / "log.jsonl")]


def test_log_file_and_tensorboard(tmp_path):
    run_info = RunInfo(tmp_path, "tiny", {}, 0)
    with open_log(run_info, [TensorBoard()]) as log:
        log.log_scalars(1, "train", {"semseg": 2.5, "total": float("inf")})
        log.log_scalars(2, "val", {"semseg/mIoU": 40.0})
        log.log_image(2, "panel", np.zeros((4, 5, 3), np.uint8))
    first, second = read_log(tmp_path / "log.jsonl")
    assert (first["step"], first["kind"], first["semseg"]) == (1, "train", 2.5)
    assert first["total"] is None
    assert second["semseg/mIoU"] == 40.0
    assert second["time"] >= first["time"]
    assert any((tmp_path / "tensorboard").iterdir())


def test_lines_are_written_before_the_run_ends(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.log_scalars(1, "train", {"a": 1.0})
        assert read_steps(tmp_path) == [(1, "train")]


def test_full_disk_is_an_error_that_names_the_log(tmp_path):
    """/dev/full rejects every write, like a full disk."""

    log = RunLog(tmp_path, 0)
    log._handle.close()
    message = r"log\.jsonl: cannot be written \(No space left"
    with Path("/dev/full").open("w") as log._handle:
        with pytest.raises(OutputError, match=message):
            log.log_scalars(1, "train", {"a": 1.0})
        with pytest.raises(OutputError, match=message):
            log.__exit__(None)


def test_resumed_run_removes_lines_after_its_checkpoint(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (1, 2, 3, 4):
            log.log_scalars(step, "train", {"loss": float(step)})
    with (tmp_path / "log.jsonl").open("a") as handle:
        handle.write('{"step": 5, "ki')
    with RunLog(tmp_path, 2) as log:
        log.log_scalars(3, "train", {"loss": 30.0})
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path / "log.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]


VALID_LINE = '{"step": 1, "kind": "val"}'


@pytest.mark.parametrize("text", ["", VALID_LINE + '\n{"st', "nothing\n", "[1]\n3\n"])
def test_invalid_lines_are_left_out(tmp_path, text):
    (tmp_path / "log.jsonl").write_text(text)
    assert read_log(tmp_path / "log.jsonl") == ([json.loads(VALID_LINE)] if "step" in text else [])
    assert read_log(tmp_path / "none.jsonl") == []
