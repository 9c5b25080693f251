"""Exit codes and error output of `densemtl.cli.run_main`."""

from __future__ import annotations

import argparse
import errno
from collections.abc import Callable

import pytest

from densemtl.cli import EXIT_INTERRUPTED, run_main
from densemtl.commands import export, hub
from densemtl.errors import ConfigError


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def test_success_exits_with_0_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(lambda: None)
    assert end.value.code == 0
    assert capsys.readouterr() == ("", "")


def test_user_errors_print_one_line_each_and_exit_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
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
def test_os_errors_print_one_line(
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
def test_out_of_memory_prints_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(raising(error))
    assert end.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: not enough memory: use a smaller batch")
    assert stderr.count("\n") == 1


def test_other_runtime_errors_are_raised() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run_main(raising(RuntimeError("shapes cannot be multiplied")))


def test_interrupt_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_main(raising(KeyboardInterrupt()))
    assert end.value.code == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_bugs_are_raised_with_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_main(raising(ZeroDivisionError()))
    with pytest.raises(FileNotFoundError):
        run_main(raising(FileNotFoundError(errno.ENOENT, "No such file", "a/b")))


@pytest.mark.parametrize(
    ("parse", "arguments", "old", "new"),
    [
        (export.parse_args, ["run"], ["--normalised"], ["--normalized"]),
        (hub.parse_args, ["run", "--save", "folder"], ["--licence", "mit"], ["--license", "mit"]),
    ],
)
def test_old_spelling_of_an_option_is_accepted_but_not_listed(
    parse: Callable[[list[str]], argparse.Namespace],
    arguments: list[str],
    old: list[str],
    new: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse([*arguments, *old]) == parse([*arguments, *new])
    assert parse([*arguments, *new]) != parse(arguments)
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    assert new[0] in shown
    assert old[0] not in shown
