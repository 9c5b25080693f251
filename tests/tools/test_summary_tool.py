"""Tests of tools/summary.py: table, diagram, JSON and errors."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from densemtl import cli
from densemtl.analysis.model_summary import summarize
from tests.helpers.experiments import make_tiny_experiment, write_tiny_config

TOOL = Path(__file__).parents[2] / "tools" / "summary.py"
Main = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def main() -> Main:
    return runpy.run_path(str(TOOL))["main"]


def test_json_equals_the_summary(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_tiny_config(tmp_path))
    main([config, "decoder.name=pad_net", "--json", "--size", "64", "96"])
    content = json.loads(capsys.readouterr().out)
    summary = summarize(make_tiny_experiment("decoder.name=pad_net", "input.size=[64, 96]"))
    assert content == json.loads(json.dumps(summary.to_dict()))
    assert content["input"] == [64, 96]
    assert [*content["groups"]] == ["shared", "semseg", "depth", "fusion"]


def test_help_documents_all_keys_of_the_json(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(write_tiny_config(tmp_path)), "--json"])
    keys = json.loads(capsys.readouterr().out).keys()
    with pytest.raises(SystemExit):
        main(["--help"])
    described = capsys.readouterr().out.split("--json prints one object:")[1]
    assert {line.split()[0] for line in described.strip().splitlines()} == keys


def test_tool_prints_a_table_and_the_sharing_diagram(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(write_tiny_config(tmp_path))])
    shown = capsys.readouterr().out
    summary = summarize(make_tiny_experiment())
    assert f"{summary.total.parameters:,}" in shown
    assert "," in f"{summary.total.parameters:,}"
    (heading,) = (line for line in shown.splitlines() if "GFLOP" in line)
    assert re.findall(r"\w+", heading)[-2:] == ["GMAC", "GFLOP"]
    (total,) = (line for line in shown.splitlines() if re.match(r"\W*all\b", line))
    costs = [f"{summary.total.gmac:.2f}", f"{summary.total.gflop:.2f}"]
    assert re.findall(r"[\d.]+", total)[-2:] == costs
    assert f"{summary.activation_mib:,.1f} MiB" in shown
    assert "hard_sharing, test_resnet, fpn, 32 x 40" in shown
    assert shown.endswith(f"\n\n{summary.structure}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decoder.name=hard_shring"], "no 'hard_shring' in decoders: did you mean"),
        (["--size", "0", "64"], "input.size.0: "),
        (["decoder.name=mtan", "backbone.name=hrnet_w18_small_v2"], "cannot be run stage by stage"),
    ],
)
def test_invalid_argument_is_an_error_of_one_line(
    main: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.run_main(lambda: main([str(write_tiny_config(tmp_path)), *arguments]))
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith("error: ")
    assert message in line
