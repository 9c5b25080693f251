"""Killed at any moment, a reader finds a whole file or folder: the old one or the new one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from densemtl.errors import OutputError
from densemtl.io.atomic import atomic_write, atomic_write_dir, find_complete_dir, write_json


class KilledError(Exception):
    """Stands for the end of the process."""


def in_a_process_that_dies(work) -> None:
    """Run in a child that ends without any clean-up, as SIGKILL does."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    os.waitpid(child, 0)


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    file = tmp_path / "deep" / "a.txt"
    for text in ("first", "second"):
        with atomic_write(file) as draft:
            assert draft.suffix == ".txt"
            draft.write_text(text)
            assert not file.exists() or file.read_text() == "first"
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_in_the_middle_leaves_the_old_file_and_no_draft(tmp_path, before):
    file = tmp_path / "a.txt"
    if before:
        file.write_text(before)

    def fail():
        with atomic_write(file) as draft:
            draft.write_text("ne")
            raise KilledError

    with pytest.raises(KilledError):
        fail()
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([before] if before else [])


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def die():
        with atomic_write(file) as draft:
            draft.write_text("ne")
            os._exit(1)

    in_a_process_that_dies(die)
    assert file.read_text() == "old"


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": [1, 2.5, None]})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": [1, 2.5, None]}
    assert list(tmp_path.iterdir()) == [file]


def write_folder(folder: Path, text: str) -> None:
    with atomic_write_dir(folder) as draft:
        assert list(draft.iterdir()) == []
        (draft / "one").write_text(text)
        (draft / "two").write_text(text)


def read_folder(folder: Path) -> str | None:
    """The text of both files, which must be of the same version."""
    whole = find_complete_dir(folder)
    if whole is None:
        return None
    one, two = ((whole / name).read_text() for name in ("one", "two"))
    assert one == two
    return one


def test_a_folder_is_replaced_when_the_block_ends(tmp_path):
    folder = tmp_path / "run" / "last"
    assert find_complete_dir(folder) is None
    for text in ("first", "second", "third"):
        write_folder(folder, text)
        assert read_folder(folder) == text
        assert find_complete_dir(folder) == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_a_kill_while_filling_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "last"
    write_folder(folder, "old")

    def die():
        with atomic_write_dir(folder) as draft:
            (draft / "one").write_text("new")
            os._exit(1)

    in_a_process_that_dies(die)
    assert read_folder(folder) == "old"
    write_folder(folder, "newer")
    assert read_folder(folder) == "newer"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("renames", range(3))
def test_a_kill_during_the_swap_loses_neither_version(tmp_path, monkeypatch, before, renames):
    """Every rename but the first `renames` is the one at which the process dies."""
    folder = tmp_path / "last"
    if before:
        write_folder(folder, before)
    done = []
    rename = Path.rename

    def rename_or_die(self, target):
        if len(done) == renames:
            raise KilledError
        done.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_or_die)
        if before or renames < 2:
            with pytest.raises(KilledError):
                write_folder(folder, "new")
        else:
            write_folder(folder, "new")
    assert read_folder(folder) in ((before,) if renames == 0 else (before or "new", "new"))
    write_folder(folder, "newer")
    assert read_folder(folder) == "newer"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("writer", [atomic_write, atomic_write_dir])
def test_what_cannot_be_written_is_one_line(tmp_path, writer):
    (tmp_path / "file").write_text("in the way")
    told = r"file/new: cannot be written \((Not a directory|File exists)\)"
    with pytest.raises(OutputError, match=told) as error, writer(tmp_path / "file" / "new"):
        pass
    assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_error_while_filling_leaves_no_draft(tmp_path):
    write_folder(tmp_path / "last", "old")

    def fail():
        with atomic_write_dir(tmp_path / "last") as draft:
            (draft / "one").write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"last: cannot be written \(No space left on device\)"):
        fail()
    assert list(tmp_path.iterdir()) == [tmp_path / "last"]
    assert read_folder(tmp_path / "last") == "old"
