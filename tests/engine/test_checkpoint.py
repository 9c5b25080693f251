"""Checkpoints: whole or not at all, of this model or an error that names the file."""

from __future__ import annotations

import resource
import signal

import pytest
import torch
from torch import nn

from densemtl.engine import checkpoint
from densemtl.engine.checkpoint import (
    compute_weights_hash,
    load_checkpoint,
    load_state_strict,
    load_weights,
    save_checkpoint,
    save_weights,
)
from densemtl.errors import CheckpointError, OutputError


class KilledError(Exception):
    """Stands for the end of the process."""


class Net(nn.Module):
    """Convolution, batch statistics, a scalar, two names for one tensor, channels-last."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, width, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(width)
        self.scale = nn.Parameter(torch.randn(()))
        self.twin = self.scale
        self.register_buffer("small", torch.randn(3).bfloat16())


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_weights_and_configuration_come_back(tmp_path):
    model, fresh = Net(), Net(seed=1)
    save_weights(tmp_path / "best.safetensors", model, "tasks: [dépth]\n")
    weights = load_weights(tmp_path / "best.safetensors")
    assert weights.config_yaml == "tasks: [dépth]\n"
    assert not same(model, fresh)
    load_state_strict(fresh, weights.tensors, tmp_path)
    assert same(model, fresh)


@pytest.mark.parametrize("cut", ["empty", "header", "tensors", "text"])
def test_a_corrupt_file_is_one_error_that_names_it(tmp_path, cut):
    file = tmp_path / "best.safetensors"
    save_weights(file, Net(), "x: 1")
    whole = file.read_bytes()
    file.write_bytes(
        {"empty": b"", "header": whole[:50], "tensors": whole[:-10], "text": b"hello" * 9}[cut]
    )
    with pytest.raises(CheckpointError, match=r"best.safetensors: not a readable"):
        load_weights(file)


def test_a_missing_file_and_one_without_configuration(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone.safetensors"):
        load_weights(tmp_path / "gone.safetensors")
    checkpoint.save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other.safetensors: holds no configuration"):
        load_weights(tmp_path / "other.safetensors")


@pytest.mark.parametrize("change", ["shape", "missing", "more"])
def test_weights_of_another_model_are_refused(tmp_path, change):
    tensors = dict(Net(width=5 if change == "shape" else 4).state_dict())
    if change == "missing":
        del tensors["scale"]
    if change == "more":
        tensors["head.weight"] = torch.ones(2)
    with pytest.raises(CheckpointError, match="run/best: does not fit the configured model"):
        load_state_strict(Net(), tensors, "run/best")


def test_an_interrupted_save_leaves_the_old_weights(tmp_path, monkeypatch):
    file = tmp_path / "best.safetensors"
    save_weights(file, Net(), "old")

    def half(tensors, draft, metadata):
        draft.write_bytes(b"half")
        raise KilledError

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(KilledError):
        save_weights(file, Net(seed=1), "new")
    assert load_weights(file).config_yaml == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_last_restores_the_model_and_the_loops_state(tmp_path):
    model, fresh = Net(), Net(seed=1)
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    state = {"step": 7, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    assert load_checkpoint(tmp_path, fresh) is None
    for step in (3, 7):
        save_checkpoint(tmp_path, model, state | {"step": step}, "x: 1")
    found = load_checkpoint(tmp_path, fresh)
    assert same(model, fresh)
    assert found["step"] == 7
    assert torch.equal(found["rng"], state["rng"])
    again = torch.optim.Adam(fresh.parameters())
    again.load_state_dict(found["optimizer"])
    assert torch.equal(
        again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


def test_an_interrupted_last_leaves_the_one_before(tmp_path, monkeypatch):
    model, fresh = Net(), Net(seed=1)
    save_checkpoint(tmp_path, model, {"step": 1}, "x: 1")

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(KilledError):
            save_checkpoint(tmp_path, Net(seed=2), {"step": 2}, "x: 1")
    assert load_checkpoint(tmp_path, fresh) == {"step": 1}
    assert same(model, fresh)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_corrupt_last_says_which_file_and_what_to_do(tmp_path, content):
    save_checkpoint(tmp_path, Net(), {"step": 1}, "x: 1")
    file = tmp_path / "last" / "state.pt"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last/state.pt: corrupt .*to start over"):
        load_checkpoint(tmp_path, Net())


def test_state_is_never_unpickled_into_code(tmp_path):
    save_checkpoint(tmp_path, Net(), {"step": 1}, "x: 1")
    torch.save({"step": print}, tmp_path / "last" / "state.pt")
    with pytest.raises(CheckpointError, match=r"state.pt"):
        load_checkpoint(tmp_path, Net())


def test_the_hash_is_of_values_and_names(tmp_path):
    model = Net()
    assert compute_weights_hash(model) == compute_weights_hash(Net())
    assert compute_weights_hash(model) == compute_weights_hash(
        Net().to(memory_format=torch.contiguous_format)
    )
    with torch.no_grad():
        model.small[1] += 1
    assert compute_weights_hash(model) != compute_weights_hash(Net())
    linear, named = nn.Sequential(nn.Linear(2, 2)), nn.ModuleDict({"a": nn.Linear(2, 2)})
    named["a"].load_state_dict(linear[0].state_dict())
    assert compute_weights_hash(linear) != compute_weights_hash(named)


def flipped(file, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray(file.read_bytes())
    data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_flipped_bit_is_told_or_without_effect(tmp_path, name, rng):
    """Neither safetensors nor torch looks at what it reads; these checksums do."""
    model, state = Net(), {"step": 1, "moment": torch.randn(64), "rng": torch.get_rng_state()}
    save_checkpoint(tmp_path, model, state, "x: 1")
    file = tmp_path / "last" / name
    whole, told = file.read_bytes(), 0
    for place in rng.integers(0, len(whole) * 8, 120).tolist():
        flipped(file, place)
        fresh = Net(seed=1)
        try:
            found = load_checkpoint(tmp_path, fresh)
        except CheckpointError as error:
            told += f"{tmp_path}/last" in str(error) and "\n" not in str(error)
        else:
            assert same(model, fresh)
            assert torch.equal(found["moment"], state["moment"])
            assert torch.equal(found["rng"], state["rng"])
            told += 1
        file.write_bytes(whole)
    assert told == 120


def test_weights_from_before_there_were_checksums_load(tmp_path):
    checkpoint.save_file({"a": torch.ones(3)}, tmp_path / "old.safetensors", {"config": "x: 1"})
    assert torch.equal(load_weights(tmp_path / "old.safetensors").tensors["a"], torch.ones(3))


def test_a_state_of_another_save_is_told(tmp_path):
    """Halves of two checkpoints, as a copy that was cut short leaves them, are no checkpoint."""
    save_checkpoint(tmp_path, Net(), {"step": 1}, "x: 1")
    older = (tmp_path / "last" / "state.pt").read_bytes()
    save_checkpoint(tmp_path, Net(seed=2), {"step": 2}, "x: 1")
    (tmp_path / "last" / "state.pt").write_bytes(older)
    with pytest.raises(CheckpointError, match=r"state.pt: corrupt .*other bytes"):
        load_checkpoint(tmp_path, Net())


@pytest.mark.parametrize("room", [0, 2000, 6000])
def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(tmp_path, room):
    """The limit on a file's size stands for a full disk, which needs no mount."""
    model = Net(width=64)
    save_checkpoint(tmp_path, model, {"step": 1}, "x: 1")
    save_weights(tmp_path / "best.safetensors", model, "x: 1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OutputError, match=r"last: cannot be written \(.*[Ff]ile too large"):
            save_checkpoint(tmp_path, Net(seed=1, width=64), {"moment": torch.ones(5000)}, "x: 1")
        with pytest.raises(OutputError, match=r"best.safetensors: cannot be written \(.*too large"):
            save_weights(tmp_path / "best.safetensors", Net(seed=1, width=64), "x: 1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fresh = Net(seed=2, width=64)
    assert load_checkpoint(tmp_path, fresh) == {"step": 1}
    assert same(model, fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last"]


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """safetensors orders several keys of metadata at random, in each file anew."""
    for number in range(8):
        save_weights(tmp_path / f"{number}.safetensors", Net(), "x: 1")
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
