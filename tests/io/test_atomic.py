"""If a writer is killed at any moment, a reader finds the complete old or new file or folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from densemtl.errors import OutputError
from densemtl.io import atomic
from densemtl.io.atomic import atomic_write, atomic_write_dir, find_complete_dir, write_json


class KilledError(Exception):
    """Error that simulates the end of the process."""


def run_in_killed_process(work) -> None:
    """Run a function in a child process that ends without clean-up, as after SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    os.waitpid(child, 0)


def test_file_is_replaced_at_the_end_of_the_block(tmp_path):
    file = tmp_path / "deep" / "a.txt"
    for text in ("first", "second"):
        with atomic_write(file) as tmp_file:
            assert tmp_file.suffix == ".txt"
            tmp_file.write_text(text)
            assert not file.exists() or file.read_text() == "first"
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("before", [None, "old"])
def test_exception_while_writing_keeps_the_old_file_only(tmp_path, before):
    file = tmp_path / "a.txt"
    if before:
        file.write_text(before)

    def fail():
        with atomic_write(file) as tmp_file:
            tmp_file.write_text("ne")
            raise KilledError

    with pytest.raises(KilledError):
        fail()
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([before] if before else [])


def test_kill_while_writing_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def die():
        with atomic_write(file) as tmp_file:
            tmp_file.write_text("ne")
            os._exit(1)

    run_in_killed_process(die)
    assert file.read_text() == "old"


@pytest.mark.parametrize("name", ["model.safetensors", "README", "a.b.json"])
def test_leftovers_of_killed_processes_are_removed(tmp_path, monkeypatch, name):
    monkeypatch.setattr(atomic, "_cleaned_folders", set())
    for other in (".notes.2024.txt", ".gitignore", "model.tmp.safetensors"):
        (tmp_path / other).write_text("of the user")
    others = set(tmp_path.iterdir())

    def die():
        with atomic_write(tmp_path / name) as tmp_file:
            tmp_file.write_text("half")
            os._exit(1)

    run_in_killed_process(die)
    assert len(set(tmp_path.iterdir()) - others) == 1
    with atomic_write(tmp_path / "other.txt") as tmp_file:
        tmp_file.write_text("new")
    assert set(tmp_path.iterdir()) - others == {tmp_path / "other.txt"}


def test_files_of_running_processes_and_of_other_machines_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_cleaned_folders", set())
    with atomic_write(tmp_path / "a.txt") as tmp_file:
        tmp_file.write_text("new")
        foreign = tmp_path / ".b.00000000-1.tmp.txt"
        old = tmp_path / ".c.00000000-1.tmp.txt"
        for file in (foreign, old):
            file.write_text("half")
        os.utime(old, (0, 0))
        atomic._cleaned_folders.clear()
        write_json(tmp_path / "d.json", {})
    assert {file.name for file in tmp_path.iterdir()} == {"a.txt", foreign.name, "d.json"}


@pytest.mark.parametrize("before", [False, True])
def test_message_says_whether_a_previous_file_is_intact(tmp_path, before):
    file = tmp_path / "a.txt"
    if before:
        file.write_text("old")
    with pytest.raises(OutputError, match=r"a\.txt: .*No space left") as error, atomic_write(file):
        raise OSError(28, "No space left on device")
    assert ("intact" in str(error.value)) == before


@pytest.mark.parametrize("writer", [atomic_write, atomic_write_dir])
def test_deleted_output_folder_is_named(tmp_path, writer):
    folder = tmp_path / "run"
    message = r"run was deleted meanwhile"
    with pytest.raises(OutputError, match=message) as error, writer(folder / "a"):
        shutil.rmtree(folder)
    assert "intact" not in str(error.value)


def test_values_that_json_does_not_support_keep_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": [1, 2.5, None]})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": [1, 2.5, None]}
    assert list(tmp_path.iterdir()) == [file]


def write_folder(folder: Path, text: str) -> None:
    with atomic_write_dir(folder) as tmp_folder:
        assert list(tmp_folder.iterdir()) == []
        (tmp_folder / "one").write_text(text)
        (tmp_folder / "two").write_text(text)


def read_folder(folder: Path) -> str | None:
    """Return the text of both files, which must be of the same version."""
    complete = find_complete_dir(folder)
    if complete is None:
        return None
    one, two = ((complete / name).read_text() for name in ("one", "two"))
    assert one == two
    return one


def test_folder_is_replaced_at_the_end_of_the_block(tmp_path):
    folder = tmp_path / "run" / "last"
    assert find_complete_dir(folder) is None
    for text in ("first", "second", "third"):
        write_folder(folder, text)
        assert read_folder(folder) == text
        assert find_complete_dir(folder) == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_kill_while_writing_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "last"
    write_folder(folder, "old")

    def die():
        with atomic_write_dir(folder) as tmp_folder:
            (tmp_folder / "one").write_text("new")
            os._exit(1)

    run_in_killed_process(die)
    assert read_folder(folder) == "old"
    write_folder(folder, "newer")
    assert read_folder(folder) == "newer"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("renames", range(3))
def test_kill_during_the_replacement_keeps_one_version(tmp_path, monkeypatch, before, renames):
    """The process dies at the rename after the first `renames` ones."""
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
def test_unwritable_path_is_an_error_of_one_line(tmp_path, writer):
    (tmp_path / "file").write_text("in the way")
    message = r"file/new: cannot be written \((Not a directory|File exists)\)"
    with pytest.raises(OutputError, match=message) as error, writer(tmp_path / "file" / "new"):
        pass
    assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "in the way"


def test_exception_while_writing_keeps_the_old_folder_only(tmp_path):
    write_folder(tmp_path / "last", "old")

    def fail():
        with atomic_write_dir(tmp_path / "last") as tmp_folder:
            (tmp_folder / "one").write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"last: cannot be written \(No space left on device\)"):
        fail()
    assert list(tmp_path.iterdir()) == [tmp_path / "last"]
    assert read_folder(tmp_path / "last") == "old"
