"""Tests of tools/benchmark.py from the configuration to the report, with real training."""

from __future__ import annotations

import json
import signal
import statistics
from pathlib import Path

import pytest

from densemtl.commands.benchmark import SIGTERM_EXIT_CODE, exit_on_sigterm
from tests.helpers.fake_benchmark_runs import write_benchmark_config
from tools.benchmark import main

TASKS = ("semseg", "depth")


def load(file: Path) -> dict:
    return json.loads(file.read_text())


def test_tool_trains_and_reports_all_runs_despite_failing_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_benchmark_config(
        tmp_path,
        overrides=["baselines=auto", "train.epochs=1"],
        decoders=["hard_sharing", "cross_stitch", {"name": "sluice", "subspaces": 7}],
        seeds=[0, 1],
        panels=True,
    )
    out = tmp_path / "out"
    command = [str(suite), "--output", str(out), "--device", "cpu", "--workers", "2"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 1
    output = capsys.readouterr()
    assert output.out.count("finished in") == 4 + 4
    assert output.out.count("FAILED: decoder.subspaces: 7 does not divide") == 2
    assert output.err.strip().endswith(": sluice, seed 0; sluice, seed 1")
    table = (out / "report" / "table.md").read_text()
    for name in ("hard_sharing", "cross_stitch"):
        runs = [load(out / name / f"seed{seed}" / "results.json") for seed in (0, 1)]
        gains = [run["delta_m"] for run in runs]
        line = next(line for line in table.splitlines() if line.startswith(f"| {name}"))
        assert f"| {statistics.fmean(gains):.4g} ± {statistics.stdev(gains):.2g} |" in line
        for run in runs:
            assert run["complete"]
            assert {run["baselines"][task]["file"] for task in TASKS} == {
                str(folder) for folder in out.glob(f"baselines/*-seed{run['seed']}-*")
            }
    memory = load(out / "cross_stitch" / "seed0" / "memory.json")
    assert 50 < memory["peak_rss_mib"] < 20_000
    page = (out / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + 2
    assert "does not divide the widths" in page

    written = {file: file.stat().st_mtime_ns for file in out.rglob("results.json")}
    assert len(written) == 8
    with pytest.raises(SystemExit):
        main(command)
    assert capsys.readouterr().out.count("already finished") == 8
    assert {file: file.stat().st_mtime_ns for file in out.rglob("results.json")} == written


def test_report_option_trains_nothing(tmp_path: Path) -> None:
    from densemtl.errors import ResultsError

    suite = write_benchmark_config(tmp_path)
    with pytest.raises(ResultsError, match="no run of the benchmark is finished"):
        main([str(suite), "--output", str(tmp_path / "out"), "--report"])
    assert not (tmp_path / "out" / "hard_sharing").exists()


def test_zero_workers_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(write_benchmark_config(tmp_path)), "--workers", "0"])
    assert stopped.value.code == 2


def test_handler_of_sigterm_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit_info:
        stop_inside_context()
    assert exit_info.value.code == SIGTERM_EXIT_CODE == 143
    assert signal.getsignal(signal.SIGTERM) is before


def stop_inside_context() -> None:
    with exit_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
