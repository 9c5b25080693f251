"""Tests of gradient methods in the training loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.engine.run_log import read_log
from densemtl.errors import ConfigError
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment


def test_norms_cosines_and_weights_are_logged_and_plotted(tmp_path: Path) -> None:
    train_experiment(
        make_tiny_experiment("balancing={name: gradvac}", "train.grad_accum_steps=2"),
        tmp_path,
        "cpu",
        max_steps=3,
    )
    lines = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "train"]
    assert len(lines) == 3
    for line in lines:
        assert line["norm/semseg"] > 0 < line["norm/depth"]
        assert -1 <= line["cosine/semseg~depth"] <= 1
        expected = line["weight/semseg"] * line["semseg"] + line["weight/depth"] * line["depth"]
        assert line["total"] == pytest.approx(expected, rel=1e-5)
    assert (tmp_path / "balancing.png").exists()


@pytest.mark.parametrize(
    ("decoder", "scope", "message"),
    [
        ("cross_stitch", "features", "balancing.scope: features: this architecture passes no"),
        ("single_task", "features", "balancing.name: a gradient method needs two or more tasks"),
    ],
)
def test_model_without_sharing_is_rejected_before_training(
    tmp_path: Path, decoder: str, scope: str, message: str
) -> None:
    tasks = ("tasks=[depth]",) if decoder == "single_task" else ()
    balancing = f"balancing={{name: gradvac, scope: {scope}}}"
    experiment = make_tiny_experiment(
        *tasks, f"decoder={{name: {decoder}}}", balancing, "baselines=auto"
    )
    with pytest.raises(ConfigError, match=message):
        train_experiment(experiment, tmp_path / "run", "cpu")
    assert list(tmp_path.iterdir()) == []
