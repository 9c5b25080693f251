"""The command `densemtl`: one subcommand per tool, the same results, quick help, unknown names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import densemtl
from densemtl.commands.__main__ import list_commands, main

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "timm", "cv2", "numpy", "pydantic", "rich")


def test_every_script_of_the_checkout_is_a_command() -> None:
    scripts = [*(ROOT / "tools").glob("*.py"), *(ROOT / "datasets").glob("*.py")]
    assert list_commands() == sorted(script.stem for script in scripts)


def test_help_lists_all_commands_without_large_imports() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "densemtl.commands", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert all(f"\n  {name} " in done.stdout for name in list_commands())
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & set(HEAVY)


def test_command_runs_with_its_own_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["densemtl"])
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    assert "usage: densemtl train" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["table", "missing_run"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: missing_run")


def test_subcommand_help_names_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["densemtl"])
    for arguments in (["evaluate", "edges", "--help"], ["evaluate", "predictions", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert f"usage: densemtl {' '.join(arguments[:2])}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["trian"], "no command 'trian': did you mean 'train'?"), ([], "required: COMMAND")],
)
def test_unknown_and_missing_commands_are_reported(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == densemtl.__version__
