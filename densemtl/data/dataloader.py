"""A DataLoader whose workers fail as clearly as the main process, and keep to one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from densemtl.errors import UserError, WorkerError

T = TypeVar("T")

WORKER_KILLED_MESSAGE = (
    "a process that reads images was killed, perhaps for want of memory: decrease"
    " loader.num_workers; a training goes on when the same command is given again"
)


@contextmanager
def translate_worker_errors() -> Iterator[None]:
    """One line where a worker was killed.

    torch raises a plain RuntimeError then, from a signal handler: wherever this process may be.

    Raises:
        WorkerError: one was.
    """
    try:
        yield
    except RuntimeError as error:
        first = error.__context__ or error
        if not any(str(exception).startswith("DataLoader worker") for exception in (error, first)):
            raise
        raise WorkerError(WORKER_KILLED_MESSAGE) from error


class ErrorForwardingDataLoader(DataLoader[T], Generic[T]):
    """As torch's, but a `UserError` in a worker arrives as it was raised.

    torch would hand it over as a text with the worker's traceback. Whatever else goes wrong in a
    worker is a bug and keeps that traceback. A worker that was killed is a `WorkerError`.
    """

    def __init__(
        self, dataset: Dataset[Any], collate_fn: Callable[[Any], T], **options: Any
    ) -> None:
        super().__init__(
            _CatchErrors(dataset),
            collate_fn=_ForwardErrors(collate_fn),
            worker_init_fn=_use_one_thread,
            # A loader draws a seed whenever it starts: not from those that training goes on from.
            generator=torch.Generator(),
            **options,
        )

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        with translate_worker_errors():
            for batch in super().__iter__():
                if isinstance(batch, UserError):
                    raise batch
                yield batch


def as_is(item: T) -> T:
    """Return an item unchanged: the collate function of a loader that makes no batches."""
    return item


class _CatchErrors(Dataset[Any]):
    """A dataset that gives a user's error back instead of raising it."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return error.with_traceback(None)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


class _ForwardErrors:
    """A collate function that lets the first error of a batch through."""

    def __init__(self, collate_fn: Callable[[Any], Any]) -> None:
        self._collate_fn = collate_fn

    def __call__(self, items: Any) -> Any:
        samples: Sequence[Any] = items if isinstance(items, list) else [items]
        errors = (item for item in samples if isinstance(item, UserError))
        return next(errors, None) or self._collate_fn(items)


def _use_one_thread(_: int) -> None:
    """Workers are the parallelism; OpenCV's own threads would fight them for the cores."""
    import cv2

    cv2.setNumThreads(0)
