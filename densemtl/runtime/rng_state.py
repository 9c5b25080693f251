"""Where all random numbers of torch stand, as one value."""

from __future__ import annotations

from typing import Any

import torch


def get_rng_state() -> dict[str, Any]:
    """The generators of the CPU and of all GPUs; read without waiting for them."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def set_rng_state(state: dict[str, Any]) -> None:
    """Go on from there; GPUs only if there are as many as there were."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
