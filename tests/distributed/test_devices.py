"""Tests of the device of a process, for valid and invalid values of `--device`."""

from __future__ import annotations

import pytest
import torch

from densemtl.distributed.devices import get_local_device
from densemtl.errors import UserError


@pytest.fixture
def set_gpus(monkeypatch):
    """Set the number of GPUs of the machine, and whether it has an Apple GPU."""

    def set_values(num_gpus: int, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_values


@pytest.mark.parametrize(
    "name",
    ["gpu", "0", "1", "mps:0", "cuda:", "cuda:-1", "cuda:x", "cuda:01", "CPU", "meta", "xpu"],
)
def test_unknown_device_gives_one_line(set_gpus, name):
    set_gpus(1, mps=True)
    with pytest.raises(UserError) as error:
        get_local_device(name)
    expected = f"--device {name}: no such device; use cpu, cuda, cuda:N or mps, or omit it"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("name", "num_gpus", "message"),
    [
        ("cuda", 0, "--device cuda: no usable GPU found"),
        ("cuda:2", 2, "--device cuda:2: this machine has 2 GPUs, numbered from 0"),
        ("mps", 1, "--device mps: no usable Apple GPU found"),
    ],
)
def test_missing_device_is_named(set_gpus, name, num_gpus, message):
    set_gpus(num_gpus)
    with pytest.raises(UserError, match=message):
        get_local_device(name)


def test_valid_names_give_their_device(set_gpus):
    set_gpus(2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert get_local_device(name) == torch.device(name)
    assert get_local_device(None) == torch.device("cuda")
    set_gpus(0, mps=True)
    assert get_local_device(None) == torch.device("cpu")


def test_ranks_use_one_gpu_each(set_gpus, monkeypatch):
    set_gpus(2, mps=True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert get_local_device("cuda") == torch.device("cuda:1") == get_local_device(None)
    assert get_local_device("cpu") == torch.device("cpu")
    for name, message in (("cuda:1", "each process uses its own GPU"), ("mps", "one process only")):
        with pytest.raises(UserError, match=message):
            get_local_device(name)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"more processes than GPUs on this machine \(2\)"):
        get_local_device("cuda")
