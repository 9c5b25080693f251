"""How a run shows itself on the terminal: a live bar, or a line an epoch where output is piped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from densemtl.distributed.collectives import is_main_process

Item = TypeVar("Item")


class ProgressBar:
    """Steps, losses by task and images a second; of several ranks the first alone shows them."""

    def __init__(self, title: str, step: int, total_steps: int, batch_size: int) -> None:
        self._console = Console(quiet=not is_main_process())
        self._title, self._step, self._batch_size = title, step, batch_size
        self._timer_start = (time.monotonic(), step)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]:.1f} img/s"),
            TextColumn("{task.fields[losses]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            title, total=total_steps, completed=step, rate=0.0, losses=""
        )

    def advance(self, step: int) -> None:
        """One more step is done."""
        self._step = step
        self._bar.update(self._task, completed=step)

    def report_losses(self, losses: Mapping[str, float]) -> float:
        """Show mean losses; gives back images a second since the last report."""
        now, (then, step) = time.monotonic(), self._timer_start
        rate = (self._step - step) * self._batch_size / max(now - then, 1e-9)
        self._timer_start = (now, self._step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self._bar.update(self._task, rate=rate, losses=text)
        return rate

    def print_line(self, text: str) -> None:
        """A line that stays, above the bar."""
        self._console.print(
            f"[bold]{self._title}[/bold]  {escape(text)}", highlight=False, soft_wrap=True
        )

    def reset_timer(self) -> None:
        """Restart the clock of `report`: what happened since was not training."""
        self._timer_start = (time.monotonic(), self._step)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def track_progress(items: Iterable[Item], total: int, title: str) -> Iterable[Item]:
    """The items with a bar of how many have been taken, or a line where output is piped."""
    console = Console(quiet=not is_main_process())
    if not console.is_terminal:
        console.print(f"[bold]{title}[/bold]", highlight=False, soft_wrap=True)
        return items
    return track(items, title, total, console=console)
