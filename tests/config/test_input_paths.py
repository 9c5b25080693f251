"""Runs given instead of configurations, and the reverse: one line with the right command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from densemtl import cli
from densemtl.commands.__main__ import main
from densemtl.config.input_paths import find_weights_file
from densemtl.config.yaml_loader import load_config
from densemtl.errors import CheckpointError, ConfigError, ResultsError
from densemtl.results.results import load_results


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a configuration and a finished run."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("base: synthetic/quick")
    run = Path("runs/x")
    run.mkdir(parents=True)
    for name in ("config.yaml", "best.safetensors", "results.json"):
        (run / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "runs/x",
            "runs/x: a run folder, not a configuration; evaluate it by `densemtl evaluate runs/x`,"
            " or resume it by `densemtl train runs/x/config.yaml --output runs/x`",
        ),
        (
            "runs/x/best.safetensors",
            "runs/x/best.safetensors: a file of weights, not a configuration; evaluate it by"
            " `densemtl evaluate runs/x/best.safetensors`",
        ),
        (
            "runs/x/results.json",
            "runs/x/results.json: a file of results, not a configuration; evaluate it by"
            " `densemtl evaluate runs/x/results.json`",
        ),
        ("runs", "runs: cannot be read: Is a directory; give a YAML file"),
        ("synthetic/quik", "{cwd}; did you mean 'synthetic/quick'?"),
        ("synthetic", "{cwd}; did you mean 'synthetic/base'?"),
        ("gone.yaml", "gone.yaml: cannot be read: No such file in {cwd}"),
    ],
)
def test_run_instead_of_configuration(path: str, message: str, work: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(Path(path))
    assert str(error.value).endswith(message.format(cwd=work))
    Path("child.yaml").write_text(f"base: {path}")
    with pytest.raises(ConfigError) as error:
        load_config(Path("child.yaml"))
    assert str(error.value).startswith(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "mine.yaml",
            "mine.yaml: a configuration, not a run; train it by `densemtl train mine.yaml`,"
            " then give its run folder runs/mine",
        ),
        (
            "synthetic/quick",
            "synthetic/quick: a configuration, not a run; train it by"
            " `densemtl train synthetic/quick`, then give its run folder runs/synthetic/quick",
        ),
        (
            "runs/x/config.yaml",
            "runs/x/config.yaml: a configuration, not a run; give its run folder runs/x",
        ),
    ],
)
def test_configuration_instead_of_run(path: str, message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        find_weights_file(Path(path))
    assert str(error.value) == message
    with pytest.raises(ResultsError) as wrong:
        load_results(Path(path))
    assert str(wrong.value) == message


def test_existing_run_folder_of_the_configuration_is_named() -> None:
    Path("runs/mine").mkdir()
    with pytest.raises(CheckpointError, match=r"not a run; give its run folder runs/mine$"):
        find_weights_file(Path("mine.yaml"))


def test_missing_run_names_the_working_directory(work: Path) -> None:
    with pytest.raises(CheckpointError, match=f"runs/y: no such file or folder in {work};"):
        find_weights_file(Path("runs/y"))
    with pytest.raises(CheckpointError, match="/gone: no such file or folder;"):
        find_weights_file(Path("/gone"))


@pytest.mark.parametrize("command", ["train", "check_data", "summary", "benchmark"])
def test_commands_with_a_configuration_reject_runs(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "runs/x"])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith("error: runs/x: a run folder, not a configuration")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["evaluate", "demo", "export", "affinity", "diagnose", "table"])
def test_commands_with_a_run_reject_configurations(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "mine.yaml", *(["a.jpg"] if command == "demo" else [])])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith("error: mine.yaml: a configuration, not a run; train it by")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "check_data", "summary", "evaluate", "demo"])
@pytest.mark.parametrize("path", ["gone", "broken.yaml"])
def test_wrong_paths_are_reported_before_large_imports(command: str, path: str) -> None:
    Path("broken.yaml").write_text("base: gone.yaml")
    arguments = [sys.executable, "-X", "importtime", "-m", "densemtl.commands", command, path]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "timm", "cv2", "numpy", "pydantic"}


def test_pipe_is_not_read_early() -> None:
    """`densemtl train <(...)` must read the pipe only once."""
    os.mkfifo("pipe.yaml")
    cli.check_config_path(Path("pipe.yaml"))  # would wait for a writer


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "mine.yaml", "--epochs", "3"], "did you mean train.epochs=3?"),
        (["train", "--epochs=3", "mine.yaml"], "did you mean train.epochs=3?"),
        (["train", "mine.yaml", "--batch-size", "4"], "did you mean loader.batch_size=4?"),
        (["train", "mine.yaml", "--optim.lr", "1e-3"], "did you mean optim.lr=1e-3?"),
        (["train", "mine.yaml", "--seed"], "did you mean seed=VALUE?"),
        (["train", "mine.yaml", "--size", "64", "96"], "did you mean input.size=[64,96]?"),
        (["summary", "mine.yaml", "--num-workers=0"], "did you mean loader.num_workers=0?"),
        (["check_data", "mine.yaml", "--root", "/x"], "did you mean data.root=/x?"),
        (["evaluate", "runs/x", "--root=/x"], "did you mean data.root=/x?"),
        (["demo", "runs/x", "a.jpg", "--root=/x"], "did you mean data.root=/x?"),
        (["benchmark_speed", "mine.yaml", "--lr=1"], "did you mean --set optim.lr=1?"),
        (["train", "mine.yaml", "--ouput", "x"], "did you mean '--output'?"),
        (["train", "mine.yaml", "--zzz"], "--help lists the options"),
        (["table", "runs/x", "--epochs", "3"], "--help lists the options"),
        (["train", "mine.yaml", "--decoder", "pad_net"], "did you mean decoder.name=pad_net?"),
        (["train", "mine.yaml", "--name", "x"], "did you mean data.name=VALUE or backbone.name="),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unknown_options_suggest_overrides(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "unrecognized arguments: --" in (error := capsys.readouterr().err)
    assert hint in error.splitlines()[-1]
