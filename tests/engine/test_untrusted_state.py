"""States of training from elsewhere: wrong fields, types and sizes are one line."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from densemtl.engine.checkpoint import load_checkpoint, save_checkpoint
from densemtl.engine.train_state import TrainingProgress
from densemtl.errors import CheckpointError
from tests.helpers.train_states import make_train_state

State = dict[str, Any]


def write_changed(folder: Path, change: Callable[[State], object]) -> None:
    """Save a checkpoint and change its state; the header then has no checksum of it."""
    state = make_train_state()
    state.save(folder, "x: 1")
    saved: State = torch.load(folder / "last" / "state.pt", weights_only=True)
    changed = change(saved)
    new = saved if changed is None else changed
    save_checkpoint(folder, state.model, new, "x: 1")


def put(*path: Any) -> Callable[[State], None]:
    """Return a function that sets a nested field to the last item."""
    *keys, last, value = path

    def change(state: Any) -> None:
        for key in keys:
            state = state[key]
        state[last] = value

    return change


CHANGES: list[Callable[[State], object]] = [
    lambda _: [1, 2],
    lambda _: torch.ones(3),
    lambda _: {},
    *[lambda state, key=key: state.pop(key) and None for key in ("record", "optimizer", "rng")],
    *[
        put(key, value)
        for key in ("record", "optimizer", "balancer", "rng")
        for value in (None, 3, "x", [1], {"a": 1})
    ],
    *[put("record", "step", value) for value in (-1, 10**30, 2**60, "one", None, 0.5)],
    put("record", "images", 10**30),
    put("record", "best_step", -5),
    put("record", "seconds", "long"),
    put("record", "scores", {"depth": 3}),
    put("record", "best_selection_scores", ["depth"]),
    put("record", "unknown", 1),
    put("optimizer", "state", {9: {"exp_avg": torch.ones(3)}}),
    put("optimizer", "state", 0, "exp_avg", torch.ones(7)),
    put("optimizer", "state", 0, "exp_avg", "x"),
    *[
        lambda state, name=name: [state["optimizer"]["state"][0].pop(name), state][1]
        for name in ("step", "exp_avg", "exp_avg_sq")
    ],
    put("optimizer", "state", 0, {}),
    put("optimizer", "param_groups", 0, "lr", "x"),
    put("optimizer", "param_groups", 0, "betas", ("x", "y")),
    put("optimizer", "param_groups", 0, "params", [0]),
    put("optimizer", "param_groups", []),
    put("optimizer", "state", 0, "exp_avg", torch.zeros(1).expand(2**31)),
    put("ema", torch.zeros(1).expand(2**31)),
    put("rng", [{"cpu": torch.ones(2)}]),
    put("rng", [{"cpu": torch.ones(5, dtype=torch.uint8), "cuda": []}]),
    put("rng", [3]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_wrong_fields_are_one_line(change: Callable[[State], object], tmp_path: Path) -> None:
    write_changed(tmp_path, change)
    with pytest.raises(CheckpointError, match=r"last/state\.pt: .* to start over") as error:
        make_train_state().restore(tmp_path)
    assert "\n" not in str(error.value)


def test_unchanged_state_is_restored(tmp_path: Path) -> None:
    write_changed(tmp_path, lambda _: None)
    state = make_train_state()
    state.restore(tmp_path)
    assert state.progress == TrainingProgress(step=1, best_selection_scores={"depth": 1.0})


def test_archive_that_expands_is_rejected(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save_checkpoint(tmp_path, model, {"a": torch.zeros(2**22)}, "x: 1")
    file = tmp_path / "last" / "state.pt"
    large = file.read_bytes()
    with zipfile.ZipFile(file) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in parts.items():
            target.writestr(name, data)
    assert file.stat().st_size < len(large) / 100
    header = f"{zlib.crc32(file.read_bytes()):08x}"
    weights = tmp_path / "last" / "model.safetensors"
    weights.write_bytes(
        weights.read_bytes().replace(f"{zlib.crc32(large):08x}".encode(), header.encode())
    )
    with pytest.raises(CheckpointError, match=r"state\.pt: corrupt \(a compressed archive"):
        load_checkpoint(tmp_path, model)
