"""Benchmark plans of the tiny experiment, and run folders of finished runs without training."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from densemtl.benchmark.grid import BenchmarkPlan, BenchmarkRun, make_plan
from densemtl.benchmark.suite_config import load_benchmark_config
from densemtl.engine.run_log import LOG_FILE
from densemtl.results.baselines import add_baselines
from densemtl.results.results import RESULTS_FILE, Results, TaskResult
from tests.helpers.experiments import write_tiny_config

COMPONENT_KEYS = ("backbone", "decoder", "head", "balancing")


def write_benchmark_config(folder: Path, **values: Any) -> Path:
    """Write a benchmark of two decoders on the tiny experiment; the value None removes a key."""
    write_tiny_config(folder)
    file = folder / "suite.yaml"
    suite = {"base": "tiny.yaml", "decoders": ["hard_sharing", "cross_stitch"], **values}
    suite = {key: value for key, value in suite.items() if value is not None}
    file.write_text(yaml.safe_dump(suite))
    return file


def make_tiny_plan(folder: Path, **values: Any) -> BenchmarkPlan:
    """Return the plan of this benchmark, with all runs in `folder/out`."""
    file = write_benchmark_config(folder, **values)
    return make_plan(load_benchmark_config(file), file, folder / "out")


def write_finished_run(
    run: BenchmarkRun, values: dict[str, float] | None = None, complete: bool = True
) -> None:
    """Write the files of a finished run with the given metric values, by default 1, 2, .."""
    experiment = run.experiment
    numbers = values or {name: 1.0 + i for i, name in enumerate(experiment.list_task_names())}
    results = Results(
        run={
            "dataset": experiment.data.name,
            **{part: getattr(experiment, part).name for part in COMPONENT_KEYS},
        },
        tasks={
            name: TaskResult(
                primary_metric=name[0], higher_is_better=name == "semseg", metrics={name[0]: value}
            )
            for name, value in numbers.items()
        },
        protocol="survey",
        split="val",
        split_fingerprint="0123",
        images=4,
        weights_hash=os.urandom(8).hex(),
        seed=experiment.seed,
        complete=complete,
        parameters=1_000_000,
        gflop=0.5,
        seconds_per_step=0.25,
        config_hash=experiment.compute_config_hash(),
        versions={},
    )
    if isinstance(experiment.baselines, dict):
        results = add_baselines(results, experiment.baselines)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(experiment.to_yaml())
    metrics = {f"{name}/{name[0]}": value for name, value in numbers.items()}
    lines = [{"step": step, "kind": "val", **metrics} for step in (1, 2)]
    (run.folder / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    results.save(run.folder / RESULTS_FILE)


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
