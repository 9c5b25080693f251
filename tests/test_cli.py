"""How tools end."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from densemtl.cli import EXIT_INTERRUPTED, run_main
from densemtl.errors import ConfigError


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(lambda: None)
    assert end.value.code == 0
    assert capsys.readouterr() == ("", "")


def test_each_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(raising(ConfigError("a.yaml: x: unknown\nb.yaml: y: missing")))
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: a.yaml: x: unknown\nerror: b.yaml: y: missing\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            "error: a/b: Permission denied\n",
        ),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    error: OSError, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(raising(error))
    assert end.value.code == 2
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[..] DefaultCPUAllocator: can't allocate memory: you tried to allocate .."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(raising(error))
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: not enough memory: take fewer images a batch")
    assert told.count("\n") == 1


def test_other_runtime_errors_are_bugs() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run_main(raising(RuntimeError("shapes cannot be multiplied")))


def test_an_interrupt_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(raising(KeyboardInterrupt()))
    assert end.value.code == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(raising(ZeroDivisionError()))
    with pytest.raises(FileNotFoundError):
        run_main(raising(FileNotFoundError(errno.ENOENT, "No such file", "a/b")))
