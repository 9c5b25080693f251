"""Two processes of one job, started as by torchrun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from tests.helpers.forked_tools import ForkedProcess, run_tool, start_forked


@dataclass
class RankProcess(ForkedProcess):
    """Started process of one rank.

    Attributes:
        store: store through which the ranks find each other.
    """

    store: TCPStore


def start_two_ranks(
    folder: Path, function: Callable[..., None], *arguments: Any
) -> list[RankProcess]:
    """Start `function(*arguments)` on two ranks with the environment variables of torchrun."""
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
        forked = start_forked(folder / f"rank{number}.txt", environment, function, *arguments)
        ranks.append(RankProcess(forked.process, forked.output, store))
    return ranks


def start_tool_on_two_ranks(folder: Path, name: str, *arguments: object) -> list[RankProcess]:
    """Start a tool on two ranks as in a shell whose working directory is `folder`."""
    return start_two_ranks(folder, run_tool, folder, name, *map(str, arguments))


def wait_for_both(ranks: list[RankProcess]) -> str:
    """Wait for both ranks, check that they succeed, and return their output."""
    statuses = [rank.wait() for rank in ranks]
    output = "".join(rank.read_output() for rank in ranks)
    assert statuses == [0, 0], output
    return output
