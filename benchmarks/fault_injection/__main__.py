"""Faults of every kind against the real tools, on tiny runs: how many, and what was lost.

`python benchmarks/faults 2>/dev/null` prints the table of docs/reliability.md. Without the right to
mount (a disk of a few hundred kilobytes) or to become another user, those rows are left out.
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
"""Whose tiny experiments and datasets these are."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all")
    parser.add_argument("--kills", type=int, default=50, help="of trainings (default: 50)")
    parser.add_argument("--flips", type=int, default=400, help="of each file (default: 400)")
    parser.add_argument("--configs", type=int, default=5000, help="random ones (default: 5000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    wrong = [kind for kind in args.kinds if kind not in KINDS]
    if wrong:
        parser.error(f"no kind {wrong[0]!r}; there are {', '.join(KINDS)}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Try them all."""
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
                losses |= {f"{row.fault}: {end}": text for end, text in row.examples.items()}
    for what, text in losses.items():
        print(f"\n{what}\n{text}")


def _make_tool(scratch: Path) -> Any:
    from training_runs import TrainTool

    from tests.helpers.experiments import write_tiny_config

    return TrainTool(write_tiny_config(scratch), scratch)


def try_kills(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """SIGKILL."""
    import sigkill

    tool = _make_tool(scratch)
    yield from sigkill.kill_trainings(tool, args.kills, rng)
    yield sigkill.kill_workers(tool, 6, rng)


def try_disk(scratch: Path, _: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Output that cannot be written."""
    import disk_full

    yield from disk_full.iter_rows(_make_tool(scratch), rng)


def try_not_finite(scratch: Path, _: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """NaN and infinity inside a training."""
    import non_finite

    yield from non_finite.iter_rows(_make_tool(scratch), rng)


def try_damage(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Flipped bits and truncated files."""
    import corruption

    yield from corruption.iter_rows(scratch, args.flips, rng)


def try_fuzz(scratch: Path, args: argparse.Namespace, rng: random.Random) -> Iterable[Any]:
    """Random configurations, pictures and label maps."""
    import fuzzing

    yield from fuzzing.iter_rows(scratch, args.configs, rng)


Kind = Callable[[Path, argparse.Namespace, random.Random], Iterable[Any]]

KINDS: dict[str, Kind] = {
    "kills": try_kills,
    "disk": try_disk,
    "not_finite": try_not_finite,
    "damage": try_damage,
    "fuzz": try_fuzz,
}

if __name__ == "__main__":
    cli.run_main(main)
