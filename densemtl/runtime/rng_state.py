"""State of the random number generators of torch that a process uses."""

from __future__ import annotations

from typing import Any

import torch


def is_cuda_initialized() -> bool:
    """Return whether this process has used a GPU; the question alone does not initialize CUDA."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def get_rng_state() -> dict[str, Any]:
    """Return the state of the generators of the CPU and the current GPU, without waiting for it.

    Returns:
        {"cpu": state, "cuda": list with the state of the current GPU}. The list is empty as long as
        this process has not used a GPU.

    Example:
        >>> state = get_rng_state()
        >>> first = torch.rand(3)
        >>> set_rng_state(state)
        >>> torch.equal(torch.rand(3), first)
        True
    """
    cuda = [torch.cuda.get_rng_state()] if is_cuda_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the state of the generators.

    Args:
        state: result of `get_rng_state`, or of an earlier version, which has one state per GPU. If
            it is from before the first use of a GPU, the generator of the GPU starts from its seed.
    """
    torch.set_rng_state(state["cpu"])
    if not is_cuda_initialized():
        return
    if not state["cuda"]:
        torch.cuda.manual_seed(torch.initial_seed())
    else:
        index = min(torch.cuda.current_device(), len(state["cuda"]) - 1)
        torch.cuda.set_rng_state(state["cuda"][index])
