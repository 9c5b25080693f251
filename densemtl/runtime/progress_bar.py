"""Progress of a run: a live bar on a terminal, or one line per epoch if output is piped."""

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
        """Update the bar after an optimizer step.

        Args:
            step: number of finished optimizer steps.
        """
        self._step = step
        self._bar.update(self._task, completed=step)

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
        text = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        self._bar.update(self._task, rate=rate, losses=text)
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
