"""Inject faults into tiny runs of the training tool, and count how often data was lost.

`python benchmarks/fault_injection 2>/dev/null` prints the table of docs/reliability.md. Rows that
need the permission to mount a small file system or to change the user are omitted without it.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from densemtl import cli

ROOT = Path(__file__).parents[2]
"""Root of the repository, for the tiny experiments and datasets of its tests."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="fault_injection", description=__doc__)
    parser.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        help=f"kinds of faults, of {', '.join(KINDS)} (default: all)",
    )
    parser.add_argument("--kills", type=int, default=50, help="killed trainings (default: 50)")
    parser.add_argument("--flips", type=int, default=400, help="bit flips per file (default: 400)")
    parser.add_argument(
        "--configs", type=int, default=5000, help="random configurations (default: 5000)"
    )
    parser.add_argument(
        "--attacks", type=int, default=40, help="attacks per kind of input (default: 40)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    args = parser.parse_args(argv)
    unknown = [kind for kind in args.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"KIND: unknown kind {unknown[0]!r}, choose from {', '.join(KINDS)}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Inject the selected kinds of faults, and print the table and one example per loss."""
    args = parse_args(argv)
    sys.path.insert(0, str(ROOT))
    import torch
    from result_table import TABLE_HEADER

    torch.set_num_threads(1)
    rng = random.Random(args.seed)
    print(TABLE_HEADER, flush=True)
    losses: dict[str, str] = {}
    for kind in args.kinds or KINDS:
        with TemporaryDirectory() as scratch:
            Path(scratch).chmod(0o755)
            for row in KINDS[kind](Path(scratch), args, rng):
                print(row, flush=True)
                losses |= {f"{row.fault}: {key}": text for key, text in row.examples.items()}
    for title, text in losses.items():
        print(f"\n{title}\n{text}")


def _make_tool(scratch: Path) -> Any:
    from training_runs import TrainTool

    from tests.helpers.experiments import write_tiny_config

    return TrainTool(write_tiny_config(scratch), scratch)


def try_kills(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Kill trainings and worker processes with SIGKILL."""
    import sigkill

    tool = _make_tool(scratch)
    yield from sigkill.kill_trainings(tool, args.kills, rng)
    yield sigkill.kill_workers(tool, 6, rng)


def try_mixed_kills(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Kill trainings with several datasets, a teacher and cached features."""
    import mixed_config
    import sigkill
    from training_runs import OVERRIDES, TrainTool

    cache = scratch / "cache"
    overrides = (*OVERRIDES, *mixed_config.list_cache_overrides(cache))
    (scratch / "runs").mkdir()
    tool = TrainTool(mixed_config.write_mixed_config(scratch), scratch / "runs", overrides)
    for row in sigkill.kill_trainings(
        tool, args.kills, rng, lambda: mixed_config.remove_some(cache, rng)
    ):
        row.fault += ", with several datasets, a teacher and cached features"
        yield row


def try_disk(scratch: Path, _: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Train with output folders that cannot be written."""
    import disk_full

    yield from disk_full.iter_rows(_make_tool(scratch), rng)


def try_not_finite(scratch: Path, _: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Inject NaN and infinity during training."""
    import non_finite

    yield from non_finite.iter_rows(_make_tool(scratch), rng)


def try_damage(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Flip bits of files and truncate files."""
    import corruption

    yield from corruption.iter_rows(scratch, args.flips, rng)


def try_fuzz(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Read random configurations, images and label maps."""
    import fuzzing

    yield from fuzzing.iter_rows(scratch, args.configs, rng)


def try_attack(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Read files and requests of an attacker."""
    import attack

    yield from attack.iter_rows(scratch, args.attacks, rng)


Kind = Callable[[Path, argparse.Namespace, random.Random], Iterable[Any]]
"""Function (scratch folder, command line, random generator) that yields rows of the table."""

KINDS: dict[str, Kind] = {
    "kills": try_kills,
    "mixed_kills": try_mixed_kills,
    "disk": try_disk,
    "not_finite": try_not_finite,
    "damage": try_damage,
    "fuzz": try_fuzz,
    "attack": try_attack,
}

if __name__ == "__main__":
    cli.run_main(main)
