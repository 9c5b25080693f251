"""Tests of tools/benchmark_speed.py: all parts, the table and the JSON file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from tests.helpers.experiments import write_tiny_config

ROOT = Path(__file__).parents[2]
PARTS = {"data", "step", "evaluation", "inference"}


def test_tool_measures_all_parts(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "benchmark_speed.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    config, file = write_tiny_config(tmp_path), tmp_path / "speed.json"
    changes = [
        "--set",
        "augment.color_jitter={brightness: 0.1}",
        "--set",
        "decoder.name=cross_stitch",
    ]
    tool.main([str(config), "--repeats", "1", "--json", str(file), *changes])
    [measurements] = json.loads(file.read_text())["configs"].values()
    assert {item["part"] for item in measurements} == PARTS
    values = {(item["part"], item["name"]): item["value"] for item in measurements}
    assert all(value > 0 for key, value in values.items() if key != ("evaluation", "scores"))
    assert 0.3 < values["step", "over a bare loop"] < 3
    assert 0.2 < values["step", "over a contiguous fp32 loop"] < 3
    assert "over a bare loop" in capsys.readouterr().out
