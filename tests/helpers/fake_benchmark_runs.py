"""Plans on the tiny experiment, and runs that are finished without any training."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml
from tests.helpers.experiments import write_tiny

from densemtl.benchmark.grid import Plan, Run, plan
from densemtl.benchmark.suite_config import load_suite
from densemtl.engine.run_log import LOG
from densemtl.results.results import RESULTS, Results, TaskResult, compare

PARTS = ("backbone", "decoder", "head", "balancing")


def write_suite(folder: Path, **values: Any) -> Path:
    """A suite of two architectures on the tiny experiment; None leaves a key out."""
    write_tiny(folder)
    file = folder / "suite.yaml"
    suite = {"base": "tiny.yaml", "decoders": ["hard_sharing", "cross_stitch"], **values}
    file.write_text(yaml.safe_dump({key: each for key, each in suite.items() if each is not None}))
    return file


def planned(folder: Path, **values: Any) -> Plan:
    """Its plan, with all runs in `folder/out`."""
    file = write_suite(folder, **values)
    return plan(load_suite(file), file, folder / "out")


def finish(run: Run, values: dict[str, float] | None = None, complete: bool = True) -> None:
    """Leave what a training leaves, with these numbers as the tasks' metrics (1, 2 ..)."""
    experiment = run.experiment
    numbers = values or {name: 1.0 + i for i, name in enumerate(experiment.task_names())}
    results = Results(
        run={
            "dataset": experiment.data.name,
            **{part: getattr(experiment, part).name for part in PARTS},
        },
        tasks={
            name: TaskResult(
                primary=name[0], higher_is_better=name == "semseg", metrics={name[0]: value}
            )
            for name, value in numbers.items()
        },
        protocol="survey",
        split="val",
        split_fingerprint="0123",
        images=4,
        weights=os.urandom(8).hex(),
        seed=experiment.seed,
        complete=complete,
        parameters=1_000_000,
        gflop=0.5,
        seconds_per_step=0.25,
        fingerprint=experiment.fingerprint(),
        versions={},
    )
    if isinstance(experiment.baselines, dict):
        results = compare(results, experiment.baselines)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(experiment.to_yaml())
    metrics = {f"{name}/{name[0]}": value for name, value in numbers.items()}
    lines = [{"step": step, "kind": "val", **metrics} for step in (1, 2)]
    (run.folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    results.save(run.folder / RESULTS)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and more than a zombie that nobody has asked for yet."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
