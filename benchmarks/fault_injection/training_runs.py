"""The training tool in forked processes, which therefore need not import torch again."""

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
from densemtl.config.input_paths import BEST_NAME, WEIGHTS_NAME
from densemtl.engine.checkpoint import LAST_DIR
from densemtl.engine.weights_file import load_weights
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
"""Twelve steps with dropout and weight averaging, a checkpoint per step, three validations."""


@dataclass
class TrainTool:
    """The tool tools/train.py on one configuration, with a reference run without faults.

    Attributes:
        config: configuration file.
        scratch: folder for runs.
        overrides: changes `key=value` of the configuration.
        reference_folder: folder of the reference run, which the constructor trains.
    """

    config: Path
    scratch: Path
    overrides: tuple[str, ...] = OVERRIDES

    def __post_init__(self) -> None:
        for name in PRELOADED_MODULES:
            importlib.import_module(name)
        self._main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "tools" / "train.py"))[
            "main"
        ]
        self.reference_folder = self.scratch / "reference"
        code, output = self.run(self.reference_folder)
        assert code == 0, output

    def start(
        self,
        folder: Path,
        setup: Callable[[], Any] = lambda: None,
        overrides: Iterable[str] | None = None,
        max_steps: int | None = None,
    ) -> int:
        """Start a training in a forked process.

        Args:
            folder: run folder.
            setup: function that is called first in the new process.
            overrides: changes of the configuration instead of `self.overrides`.
            max_steps: number of steps after which the training stops; None trains to the end.

        Returns:
            The process id.
        """
        child = os.fork()
        if child:
            return child
        with (self.scratch / "output").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            changes = self.overrides if overrides is None else overrides
            command = [str(self.config), *changes, "--output", str(folder), "--device", "cpu"]
            command += [] if max_steps is None else ["--max-steps", str(max_steps)]
            os._exit(_run_to_exit_code(setup, lambda: self._main(command)))

    def wait(self, child: int) -> tuple[int, str]:
        """Wait for the end of a training.

        Args:
            child: process id.

        Returns:
            The exit code, negative for a signal, and the output.
        """
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), (self.scratch / "output").read_text()

    def run(
        self,
        folder: Path,
        setup: Callable[[], Any] = lambda: None,
        overrides: Iterable[str] | None = None,
        max_steps: int | None = None,
    ) -> tuple[int, str]:
        """Train until the end or a failure; parameters of `start`, result of `wait`."""
        return self.wait(self.start(folder, setup, overrides, max_steps))

    def is_equal_to_reference(self, folder: Path) -> bool:
        """Return whether weights and metrics are bit-identical to those of the reference run."""
        equal_weights = all(
            _has_equal_weights(self.reference_folder / name, folder / name)
            for name in (BEST_NAME, f"{LAST_DIR}/{WEIGHTS_NAME}")
        )
        results, reference = (load_results(path) for path in (folder, self.reference_folder))
        equal_results = results.tasks == reference.tasks
        return equal_weights and equal_results and results.weights_hash == reference.weights_hash


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


def _has_equal_weights(first: Path, second: Path) -> bool:
    left, right = load_weights(first).tensors, load_weights(second).tensors
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def is_one_line_error(code: int, output: str, *words: str) -> bool:
    """Return whether a tool reported an error as specified.

    Args:
        code: exit code, which must be 2.
        output: output, which must have one line that starts with "error: ", and no traceback.
        words: texts that this line must contain.
    """
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    is_one_line = "Traceback" not in output and len(lines) == 1
    return code == 2 and is_one_line and all(word in lines[0] for word in words)
