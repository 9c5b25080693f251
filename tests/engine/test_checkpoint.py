"""Tests of checkpoints: atomic writing, exact restoring, and errors that name the file."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from densemtl.engine import weights_file
from densemtl.engine.checkpoint import load_checkpoint, save_checkpoint
from densemtl.engine.weights_file import (
    compute_weights_hash,
    load_state_strict,
    load_weights,
    save_weights,
)
from densemtl.errors import CheckpointError, OutputError


class KilledError(Exception):
    """Error that simulates the end of the process."""


class Net(nn.Module):
    """Model with batch statistics, a scalar, a shared tensor and channels-last weights."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, width, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(width)
        self.scale = nn.Parameter(torch.randn(()))
        self.twin = self.scale
        self.register_buffer("small", torch.randn(3).bfloat16())


def have_equal_states(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_saved_weights_and_configuration_are_restored(tmp_path):
    model, fresh = Net(), Net(seed=1)
    save_weights(tmp_path / "best.safetensors", model, "tasks: [dépth]\n")
    weights = load_weights(tmp_path / "best.safetensors")
    assert weights.config_yaml == "tasks: [dépth]\n"
    assert not have_equal_states(model, fresh)
    load_state_strict(fresh, weights.tensors, tmp_path)
    assert have_equal_states(model, fresh)


@pytest.mark.parametrize("cut", ["empty", "header", "tensors", "text"])
def test_corrupt_weights_file_raises_an_error_with_its_name(tmp_path, cut):
    file = tmp_path / "best.safetensors"
    save_weights(file, Net(), "x: 1")
    data = file.read_bytes()
    file.write_bytes(
        {"empty": b"", "header": data[:50], "tensors": data[:-10], "text": b"hello" * 9}[cut]
    )
    with pytest.raises(CheckpointError, match=r"best.safetensors: not a readable"):
        load_weights(file)


def test_missing_file_and_file_without_configuration_raise_errors(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone.safetensors"):
        load_weights(tmp_path / "gone.safetensors")
    weights_file.save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other.safetensors: holds no configuration"):
        load_weights(tmp_path / "other.safetensors")


@pytest.mark.parametrize("change", ["shape", "missing", "more"])
def test_weights_of_another_model_are_rejected(tmp_path, change):
    tensors = dict(Net(width=5 if change == "shape" else 4).state_dict())
    if change == "missing":
        del tensors["scale"]
    if change == "more":
        tensors["head.weight"] = torch.ones(2)
    with pytest.raises(CheckpointError, match="run/best: does not fit the configured model"):
        load_state_strict(Net(), tensors, "run/best")


def test_interrupted_save_keeps_the_old_weights(tmp_path, monkeypatch):
    file = tmp_path / "best.safetensors"
    save_weights(file, Net(), "old")

    def write_half(tensors, tmp_file, metadata):
        tmp_file.write_bytes(b"half")
        raise KilledError

    monkeypatch.setattr(weights_file, "save_file", write_half)
    with pytest.raises(KilledError):
        save_weights(file, Net(seed=1), "new")
    assert load_weights(file).config_yaml == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_checkpoint_restores_model_and_training_state(tmp_path):
    model, fresh = Net(), Net(seed=1)
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    state = {"step": 7, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    assert load_checkpoint(tmp_path, fresh) is None
    for step in (3, 7):
        save_checkpoint(tmp_path, model, state | {"step": step}, "x: 1")
    restored = load_checkpoint(tmp_path, fresh)
    assert have_equal_states(model, fresh)
    assert restored["step"] == 7
    assert torch.equal(restored["rng"], state["rng"])
    new_optimizer = torch.optim.Adam(fresh.parameters())
    new_optimizer.load_state_dict(restored["optimizer"])
    assert torch.equal(
        new_optimizer.state_dict()["state"][0]["exp_avg"],
        optimizer.state_dict()["state"][0]["exp_avg"],
    )


def test_interrupted_checkpoint_keeps_the_previous_one(tmp_path, monkeypatch):
    model, fresh = Net(), Net(seed=1)
    save_checkpoint(tmp_path, model, {"step": 1}, "x: 1")

    def raise_killed(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", raise_killed)
        with pytest.raises(KilledError):
            save_checkpoint(tmp_path, Net(seed=2), {"step": 2}, "x: 1")
    assert load_checkpoint(tmp_path, fresh) == {"step": 1}
    assert have_equal_states(model, fresh)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_corrupt_training_state_raises_an_error_with_file_and_fix(tmp_path, content):
    save_checkpoint(tmp_path, Net(), {"step": 1}, "x: 1")
    file = tmp_path / "last" / "state.pt"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last/state.pt: corrupt .*to start over"):
        load_checkpoint(tmp_path, Net())


def test_state_with_code_is_not_unpickled(tmp_path):
    save_checkpoint(tmp_path, Net(), {"step": 1}, "x: 1")
    torch.save({"step": print}, tmp_path / "last" / "state.pt")
    with pytest.raises(CheckpointError, match=r"state.pt"):
        load_checkpoint(tmp_path, Net())


def test_weights_hash_depends_on_values_and_names(tmp_path):
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


def flip_bit(file, index: int) -> None:
    """Invert one bit of a file."""
    data = bytearray(file.read_bytes())
    data[index // 8] ^= 1 << index % 8
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_flipped_bit_is_reported_or_has_no_effect(tmp_path, name, rng):
    """safetensors and torch do not verify what they read; the checksums of the checkpoint do."""
    model, state = Net(), {"step": 1, "moment": torch.randn(64), "rng": torch.get_rng_state()}
    save_checkpoint(tmp_path, model, state, "x: 1")
    file = tmp_path / "last" / name
    data, num_passed = file.read_bytes(), 0
    for index in rng.integers(0, len(data) * 8, 120).tolist():
        flip_bit(file, index)
        fresh = Net(seed=1)
        try:
            restored = load_checkpoint(tmp_path, fresh)
        except CheckpointError as error:
            num_passed += f"{tmp_path}/last" in str(error) and "\n" not in str(error)
        else:
            assert have_equal_states(model, fresh)
            assert torch.equal(restored["moment"], state["moment"])
            assert torch.equal(restored["rng"], state["rng"])
            num_passed += 1
        file.write_bytes(data)
    assert num_passed == 120


def test_weights_without_checksum_are_loaded(tmp_path):
    weights_file.save_file({"a": torch.ones(3)}, tmp_path / "old.safetensors", {"config": "x: 1"})
    assert torch.equal(load_weights(tmp_path / "old.safetensors").tensors["a"], torch.ones(3))


def test_files_of_two_checkpoints_are_rejected(tmp_path):
    """An interrupted copy can leave the weights of one checkpoint and the state of another."""
    save_checkpoint(tmp_path, Net(), {"step": 1}, "x: 1")
    older = (tmp_path / "last" / "state.pt").read_bytes()
    save_checkpoint(tmp_path, Net(seed=2), {"step": 2}, "x: 1")
    (tmp_path / "last" / "state.pt").write_bytes(older)
    with pytest.raises(CheckpointError, match=r"state.pt: corrupt .*checksum does not match"):
        load_checkpoint(tmp_path, Net())


@pytest.mark.parametrize("max_file_size", [0, 2000, 6000])
def test_full_disk_raises_one_line_and_keeps_the_old_checkpoint(tmp_path, max_file_size):
    """A limit of the file size simulates a full disk."""
    model = Net(width=64)
    save_checkpoint(tmp_path, model, {"step": 1}, "x: 1")
    save_weights(tmp_path / "best.safetensors", model, "x: 1")
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, old_limit[1]))
    try:
        with pytest.raises(OutputError, match=r"last: cannot be written \(.*[Ff]ile too large"):
            save_checkpoint(tmp_path, Net(seed=1, width=64), {"moment": torch.ones(5000)}, "x: 1")
        with pytest.raises(OutputError, match=r"best.safetensors: cannot be written \(.*too large"):
            save_weights(tmp_path / "best.safetensors", Net(seed=1, width=64), "x: 1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    fresh = Net(seed=2, width=64)
    assert load_checkpoint(tmp_path, fresh) == {"step": 1}
    assert have_equal_states(model, fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last"]


def test_equal_weights_give_equal_files(tmp_path):
    """safetensors writes several metadata keys in a different random order in each file."""
    for number in range(8):
        save_weights(tmp_path / f"{number}.safetensors", Net(), "x: 1")
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 8, b"\xff" * 100, b"{}", b"\x02\0\0\0\0\0\0\0{}"])
def test_corrupt_weights_are_explained_without_texts_of_libraries(tmp_path, content):
    file = tmp_path / "best.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_weights(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ")
    assert not any(word in message for word in ("deserializ", "Header", "header", "Error"))


def test_other_model_is_explained_without_texts_of_torch():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    tensors = nn.Sequential(nn.Linear(2, 4)).state_dict() | {"x": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        load_state_strict(model, tensors, Path("best"))
    assert str(error.value) == (
        "best: does not fit the configured model: tensors: 2 missing ('1.weight'); 1 unknown ('x');"
        " 2 of another shape ('0.weight' is (4, 2), not (3, 2))"
    )
