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
from densemtl.engine.checkpoint import BEST_NAME, LAST_DIR, WEIGHTS_NAME, load_weights
from densemtl.results.results import load_results

ROOT = Path(__file__).parents[2]
PRELOADED_MODULES = (
    "densemtl.runs.train_run",
    "torch.utils.tensorboard",
    "matplotlib.pyplot",
    "densemtl.results.tables",
)
OVERRIDES = (
    "train.epochs=3",
    "train.checkpoint_every_steps=1",
    "train.ema_decay=0.9",
    "head={name: deeplabv3}",
)
"""Twelve steps with dropout and an averaged model; a checkpoint a step, three validations."""


@dataclass
class TrainTool:
    """tools/train.py on one configuration, and what it gives when nothing goes wrong."""

    config: Path
    scratch: Path

    def __post_init__(self) -> None:
        for name in PRELOADED_MODULES:
            importlib.import_module(name)
        self._main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "tools" / "train.py"))[
            "main"
        ]
        self.reference_folder = self.scratch / "whole"
        code, said = self.run(self.reference_folder)
        assert code == 0, said

    def start(
        self,
        folder: Path,
        setup: Callable[[], Any] = lambda: None,
        overrides: Iterable[str] = OVERRIDES,
        max_steps: int | None = None,
    ) -> int:
        """Start a training; `setup` is called in its process first. Gives its process id."""
        child = os.fork()
        if child:
            return child
        with (self.scratch / "said").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            command = [str(self.config), *overrides, "--output", str(folder), "--device", "cpu"]
            command += [] if max_steps is None else ["--max-steps", str(max_steps)]
            os._exit(_run_to_exit_code(setup, lambda: self._main(command)))

    def wait(self, child: int) -> tuple[int, str]:
        """A training's exit code, negative for a signal, and what it said."""
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), (self.scratch / "said").read_text()

    def run(
        self,
        folder: Path,
        setup: Callable[[], Any] = lambda: None,
        overrides: Iterable[str] = OVERRIDES,
        max_steps: int | None = None,
    ) -> tuple[int, str]:
        """Train to the end, or until it fails."""
        return self.wait(self.start(folder, setup, overrides, max_steps))

    def is_equal_to_reference(self, folder: Path) -> bool:
        """Whether weights and scores are, bit for bit, those of a run without faults."""
        alike = all(
            _is_same_weights(self.reference_folder / name, folder / name)
            for name in (BEST_NAME, f"{LAST_DIR}/{WEIGHTS_NAME}")
        )
        ours, theirs = (load_results(each) for each in (folder, self.reference_folder))
        return alike and ours.tasks == theirs.tasks and ours.weights_hash == theirs.weights_hash


def _run_to_exit_code(setup: Callable[[], Any], main: Callable[[], None]) -> int:
    try:
        setup()
        cli.run_main(main)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _is_same_weights(first: Path, second: Path) -> bool:
    ours, theirs = load_weights(first).tensors, load_weights(second).tensors
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def is_one_line_error(code: int, output: str, *words: str) -> bool:
    """Whether a tool ended as it should: exit code 2, and one line with these words."""
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    whole = "Traceback" not in output and len(lines) == 1
    return code == 2 and whole and all(word in lines[0] for word in words)
