"""Rules that weigh gradients, in the loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from densemtl.engine.run_log import read_log
from densemtl.errors import ConfigError
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment


def test_what_was_weighed_is_logged_and_drawn(tmp_path: Path) -> None:
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
        told = line["weight/semseg"] * line["semseg"] + line["weight/depth"] * line["depth"]
        assert line["total"] == pytest.approx(told, rel=1e-5)
    assert (tmp_path / "balancing.png").exists()


@pytest.mark.parametrize(
    ("decoder", "scope", "message"),
    [
        ("cross_stitch", "features", "balancing.scope: features: this architecture hands its"),
        ("single_task", "features", "balancing: one task has no gradients to weigh: use fixed"),
    ],
)
def test_what_shares_nothing_is_refused_before_any_training(
    tmp_path: Path, decoder: str, scope: str, message: str
) -> None:
    alone = ("tasks=[depth]",) if decoder == "single_task" else ()
    balancing = f"balancing={{name: gradvac, scope: {scope}}}"
    experiment = make_tiny_experiment(
        *alone, f"decoder={{name: {decoder}}}", balancing, "baselines=auto"
    )
    with pytest.raises(ConfigError, match=message):
        train_experiment(experiment, tmp_path / "run", "cpu")
    assert list(tmp_path.iterdir()) == []
