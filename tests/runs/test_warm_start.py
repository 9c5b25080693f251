"""Networks of one task each, started from single-task runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densemtl.engine.checkpoint import load_weights
from densemtl.errors import CheckpointError, ConfigError
from densemtl.factory import build_splits
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config
from tests.helpers.exact import assert_same
from tests.helpers.experiments import make_tiny_experiment

pytestmark = pytest.mark.usefixtures("no_figures")

SHORT = ("train.epochs=1", "decoder={name: cross_stitch, alpha: 1.0}")
TASKS = ("semseg", "depth")


@pytest.fixture(scope="module")
def singles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("singles")
    for task in TASKS:
        train_experiment(
            make_tiny_experiment("train.epochs=1").to_single_task(task), folder / task, "cpu"
        )
    return {task: folder / task for task in TASKS}


def named(singles: dict[str, Path]) -> str:
    return "{" + ", ".join(f"{task}: {path}" for task, path in singles.items()) + "}"


def test_unmixed_networks_repeat_the_single_task_runs(
    singles: dict[str, Path], tmp_path: Path
) -> None:
    experiment = make_tiny_experiment(*SHORT)
    job = build_training_run(
        experiment,
        build_splits(experiment),
        tmp_path,
        make_execution_config(experiment.train, "cpu"),
        singles,
    )
    batch = next(iter(job.val_loader))
    with torch.no_grad():
        final = job.train_step.model.eval().double()(batch.image).logits
    for task in TASKS:
        single = make_tiny_experiment("train.epochs=1").to_single_task(task)
        alone = build_training_run(
            single,
            build_splits(single),
            tmp_path / task,
            make_execution_config(single.train, "cpu"),
        ).train_step.model
        alone.load_state_dict(load_weights(singles[task] / "best.safetensors").tensors)
        with torch.no_grad():
            assert_same(final[task], alone.eval().double()(batch.image).logits[task])


def test_baselines_serve_as_start_and_as_reference(
    singles: dict[str, Path], tmp_path: Path
) -> None:
    given = f"baselines={named(singles)}"
    results = train_experiment(
        make_tiny_experiment(*SHORT, given, "init_from=baselines"), tmp_path / "run", "cpu"
    )
    assert results.delta_m is not None


def test_what_cannot_start_is_told_before_anything_is_trained(
    singles: dict[str, Path], tmp_path: Path
) -> None:
    start = f"init_from={named(singles)}"
    for changes, kind, told in (
        (("init_from=baselines", "decoder={name: hard_sharing}"), ConfigError, "no network a task"),
        (("init_from=baselines",), ConfigError, "there are none"),
        ((f"init_from={{semseg: {singles['semseg']}}}",), ConfigError, "no single-task .* 'depth'"),
        ((start, "head.width=16"), CheckpointError, "cannot start 'semseg' from it"),
        ((f"init_from={{semseg: {tmp_path}, depth: x}}",), CheckpointError, "no finished valid"),
    ):
        with pytest.raises(kind, match=told):
            train_experiment(make_tiny_experiment(*SHORT, *changes), tmp_path / "never", "cpu")
        assert not (tmp_path / "never").exists()
