"""Device of this process: validation of `--device`, and the GPU of each rank."""

from __future__ import annotations

import os
import re

import torch

from densemtl.errors import UserError

DEVICE = re.compile(r"cpu|mps|cuda(:(0|[1-9]\d{0,3}))?")
"""Valid values of `--device`."""

CHOICES = "use cpu, cuda, cuda:N or mps, or omit it"


def get_local_device(name: str | None) -> torch.device:
    """Return the device of this rank.

    Args:
        name: "cpu", "cuda", "mps", or "cuda:1" in a single process; None selects an NVIDIA or AMD
            GPU if there is one, and the CPU otherwise.

    Returns:
        The device; GPU 1 for "cuda" on the second rank of a machine.

    Raises:
        UserError: if there is no such device, or if the ranks of this machine cannot use it
            together.

    Example:
        >>> get_local_device("cpu")
        device(type='cpu')
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_available(name)
    local_rank = os.environ.get("LOCAL_RANK")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or local_rank is None or name == "cpu":
        return torch.device(name)
    if name == "mps":
        raise UserError("--device mps: supports one process only; use --device cpu, or no torchrun")
    if name != "cuda":
        raise UserError(f"--device {name}: each process uses its own GPU; use --device cuda")
    num_gpus = torch.cuda.device_count()
    if int(local_rank) >= num_gpus:
        raise UserError(
            f"more processes than GPUs on this machine ({num_gpus}): decrease torchrun's "
            f"--nproc-per-node"
        )
    return torch.device(name, int(local_rank))


def _check_available(name: str) -> None:
    if not DEVICE.fullmatch(name):
        raise UserError(f"--device {name}: no such device; {CHOICES}")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: no usable Apple GPU found; omit it or use --device cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no usable GPU found; omit it or use --device cpu")
    _, _, index = name.partition(":")
    if index and int(index) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: this machine has {torch.cuda.device_count()} GPUs, numbered from 0"
        )
