"""State of all random number generators of torch."""

from __future__ import annotations

from typing import Any

import torch


def get_rng_state() -> dict[str, Any]:
    """Return the state of the generators of the CPU and all GPUs, without waiting for the GPUs.

    Returns:
        {"cpu": state, "cuda": list with one state per GPU}.

    Example:
        >>> state = get_rng_state()
        >>> first = torch.rand(3)
        >>> set_rng_state(state)
        >>> torch.equal(torch.rand(3), first)
        True
    """
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the state of the generators.

    Args:
        state: result of `get_rng_state`. The states of GPUs are restored only if the number of GPUs
            is the same.
    """
    torch.set_rng_state(state["cpu"])
    if torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
