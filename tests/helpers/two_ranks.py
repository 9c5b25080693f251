"""Two processes of one job, as torchrun would start them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.forked_tools import Forked, fork, run_tool
from torch.distributed import TCPStore


@dataclass
class Rank(Forked):
    """One of them, and where they find each other."""

    store: TCPStore


def start(folder: Path, job: Callable[..., None], *arguments: Any) -> list[Rank]:
    """Two ranks of `job(*arguments)`, with their environment set."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = []
    for number in range(2):
        environment = {
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
        }
        forked = fork(folder / f"rank{number}.txt", environment, job, *arguments)
        ranks.append(Rank(forked.process, forked.output, store))
    return ranks


def tool(folder: Path, name: str, *arguments: object) -> list[Rank]:
    """Two ranks of a tool, run as from a shell in `folder`."""
    return start(folder, run_tool, folder, name, *map(str, arguments))


def both(ranks: list[Rank]) -> str:
    """Wait for two that must end well; what both said."""
    statuses = [rank.wait() for rank in ranks]
    said = "".join(rank.said() for rank in ranks)
    assert statuses == [0, 0], said
    return said
