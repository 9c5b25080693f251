"""The real training tool in forked processes, so that none of them has to import torch again."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from densemtl import cli
from densemtl.engine.checkpoint import BEST, LAST, PUBLISHED, load_weights
from densemtl.results.results import load_results

ROOT = Path(__file__).parents[2]
WARM = ("densemtl.runs.train_run", "torch.utils.tensorboard", "matplotlib.pyplot", "densemtl.results.tables")
OVERRIDES = ("train.epochs=3", "train.checkpoint_steps=1", "train.ema=0.9", "head={name: deeplab}")
"""Twelve steps with dropout and an averaged model; a checkpoint a step, three validations."""


@dataclass
class Tool:
    """tools/train.py on one configuration, and what it gives when nothing goes wrong."""

    config: Path
    scratch: Path

    def __post_init__(self) -> None:
        for name in WARM:
            importlib.import_module(name)
        self._main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "tools" / "train.py"))[
            "main"
        ]
        self.whole = self.scratch / "whole"
        code, said = self.run(self.whole)
        assert code == 0, said

    def start(
        self,
        folder: Path,
        before: Callable[[], Any] = lambda: None,
        overrides: Iterable[str] = OVERRIDES,
        steps: int | None = None,
    ) -> int:
        """Start a training; `before` is called in its process first. Gives its process id."""
        child = os.fork()
        if child:
            return child
        with (self.scratch / "said").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            command = [str(self.config), *overrides, "--output", str(folder), "--device", "cpu"]
            command += [] if steps is None else ["--max-steps", str(steps)]
            os._exit(_code(before, lambda: self._main(command)))

    def wait(self, child: int) -> tuple[int, str]:
        """A training's exit code, negative for a signal, and what it said."""
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), (self.scratch / "said").read_text()

    def run(
        self,
        folder: Path,
        before: Callable[[], Any] = lambda: None,
        overrides: Iterable[str] = OVERRIDES,
        steps: int | None = None,
    ) -> tuple[int, str]:
        """Train to the end, or until it fails."""
        return self.wait(self.start(folder, before, overrides, steps))

    def equals_whole(self, folder: Path) -> bool:
        """Whether weights and scores are, bit for bit, those of a run without faults."""
        alike = all(
            _same(self.whole / name, folder / name) for name in (BEST, f"{LAST}/{PUBLISHED}")
        )
        ours, theirs = (load_results(each) for each in (folder, self.whole))
        return alike and ours.tasks == theirs.tasks and ours.weights == theirs.weights


def _code(before: Callable[[], Any], main: Callable[[], None]) -> int:
    try:
        before()
        cli.run(main)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _same(one: Path, other: Path) -> bool:
    ours, theirs = load_weights(one).tensors, load_weights(other).tensors
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def is_one_line(code: int, said: str, *words: str) -> bool:
    """Whether a tool ended as it should: exit code 2, and one line with these words."""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    whole = "Traceback" not in said and len(lines) == 1
    return code == 2 and whole and all(word in lines[0] for word in words)
