"""Progress of a run: a live bar on a terminal, or a line every 30 seconds if output is piped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
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

LINE_SECONDS = 30.0
"""Time between lines of progress if output is piped."""


class ProgressBar:
    """Progress bar of training with steps, losses of the tasks and images per second.

    Only the main process prints. The progress bar is a context manager.

    Args:
        title: name of the run.
        step: number of finished optimizer steps at the start.
        total_steps: number of optimizer steps at the end.
        batch_size: images per optimizer step, on all ranks.
    """

    def __init__(self, title: str, step: int, total_steps: int, batch_size: int) -> None:
        self._console = Console(quiet=not is_main_process())
        self._title, self._step, self._batch_size = title, step, batch_size
        self._total_steps, self._start_step = total_steps, step
        self._start = self._last_line = time.monotonic()
        self._losses: Mapping[str, float] = {}
        self._timer_start = (self._start, step)
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

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        """Update the bar after an optimizer step.

        If output is piped, print a line with the progress every `LINE_SECONDS`.

        Args:
            step: number of finished optimizer steps.
            losses: {task: mean loss of the latest steps}; if empty, the previous losses are shown.
        """
        self._step = step
        self._losses = losses or self._losses
        self._bar.update(self._task, completed=step)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            rate = (step - self._start_step) / (now - self._start)
            remaining = timedelta(seconds=round((self._total_steps - step) / rate))
            self.print_line(
                f"step {step}/{self._total_steps}  {_format_losses(self._losses)}  "
                f"{rate * self._batch_size:.3g} img/s  {remaining} left"
            )

    def report_losses(self, losses: Mapping[str, float]) -> float:
        """Show mean losses and the training speed since the last call.

        Args:
            losses: {task: mean loss}.

        Returns:
            Images per second since the last call or the last `reset_timer`.
        """
        now, (start, start_step) = time.monotonic(), self._timer_start
        rate = (self._step - start_step) * self._batch_size / max(now - start, 1e-9)
        self._timer_start = (now, self._step)
        self._bar.update(self._task, rate=rate, losses=_format_losses(losses))
        return rate

    def print_line(self, text: str) -> None:
        """Print a permanent line above the bar.

        Args:
            text: the line; the title of the run is printed before it.
        """
        self._console.print(
            f"[bold]{self._title}[/bold]  {escape(text)}", highlight=False, soft_wrap=True
        )

    def reset_timer(self) -> None:
        """Exclude the time since the last `report_losses` from the next images per second."""
        self._timer_start = (time.monotonic(), self._step)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _format_losses(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())


def print_message(text: str) -> None:
    """Print one line, on the main process only.

    Args:
        text: the line.
    """
    Console(quiet=not is_main_process()).print(escape(text), highlight=False, soft_wrap=True)


def track_progress(items: Iterable[Item], total: int, title: str) -> Iterable[Item]:
    """Show a progress bar while iterating, or print one line if output is piped.

    Args:
        items: the items to iterate over.
        total: number of items.
        title: description of the work.

    Returns:
        An iterable of the same items.
    """
    console = Console(quiet=not is_main_process())
    if not console.is_terminal:
        console.print(f"[bold]{title}[/bold]", highlight=False, soft_wrap=True)
        return items
    return track(items, title, total, console=console)
