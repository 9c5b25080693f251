"""What a run tells while it goes: `log.jsonl`, TensorBoard and one line or bar on the terminal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densemtl.atomic import replacing
from densemtl.distributed import is_first

LOG = "log.jsonl"

SHARING, RELATIONS = "sharing", "relations"
"""Kinds of lines: what was learnt about sharing, and how tasks' gradients get on."""


class RunLog:
    """Scalars by step, to a JSONL file and TensorBoard.

    A run that goes on from an earlier step drops what was logged after it, and a half-written
    last line, so that the log reads as if the run had never been interrupted.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file = folder / LOG
        _keep_until(self._file, step)
        self._handle = self._file.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Log named numbers, NaN as null; `kind` is "train", "val", "sharing" .."""
        told = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": step, "kind": kind, "time": round(time.time(), 3), **told}
        self._handle.write(json.dumps(line) + "\n")
        self._handle.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, step: int, name: str, picture: Any) -> None:
        """Show an HxWx3 uint8 picture in TensorBoard."""
        self._board.add_image(name, picture, step, dataformats="HWC")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()
        self._board.close()


class _SilentLog(RunLog):
    """Takes everything and tells nothing."""

    def __init__(self) -> None:
        pass

    def scalars(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Nothing."""

    def picture(self, step: int, name: str, picture: Any) -> None:
        """Nothing."""

    def __exit__(self, *_: object) -> None:
        pass


def open_log(folder: Path, step: int) -> RunLog:
    """The log of a run that stands at a step; of several ranks the first alone writes it."""
    return RunLog(folder, step) if is_first() else _SilentLog()


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`; a half-written one is left out."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _keep_until(file: Path, step: int) -> None:
    kept = [line for line in read_log(file) if line["step"] <= step]
    with replacing(file) as draft:
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
