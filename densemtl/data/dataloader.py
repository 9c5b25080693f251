"""DataLoader that forwards errors of worker processes as they were raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from densemtl.data.shared_batches import BlockPool, can_share_batches
from densemtl.data.worker_memory import keep_freed_memory
from densemtl.errors import UserError, WorkerError
from densemtl.types import Batch

T = TypeVar("T")

WORKER_KILLED_MESSAGE = (
    "a worker process that reads images was killed, perhaps because memory ran out: decrease"
    " loader.num_workers and run the same command again; training resumes"
)


@contextmanager
def translate_worker_errors() -> Iterator[None]:
    """Raise an error of one line if a worker process is killed.

    torch then raises a plain RuntimeError from a signal handler, which may interrupt the main
    process at any statement. Therefore whole training and evaluation runs are wrapped.

    Yields:
        Nothing.

    Raises:
        WorkerError: if a worker process was killed.
    """
    try:
        yield
    except RuntimeError as error:
        first = error.__context__ or error
        if not any(str(exception).startswith("DataLoader worker") for exception in (error, first)):
            raise
        raise WorkerError(WORKER_KILLED_MESSAGE) from error


class ErrorForwardingDataLoader(DataLoader[T], Generic[T]):
    """DataLoader that raises a `UserError` of a worker process unchanged.

    The loader of torch would raise it with the worker's traceback as its message. Other exceptions
    in a worker are bugs and keep that traceback. A killed worker raises a `WorkerError`. Each
    worker uses one thread.

    Args:
        dataset: map-style dataset.
        collate_fn: function from the samples of a batch to the batch; from one sample to the item
            if `batch_size` is None.
        **options: further arguments of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self, dataset: Dataset[Any], collate_fn: Callable[[Any], T], **options: Any
    ) -> None:
        super().__init__(
            _CatchErrors(dataset),
            collate_fn=_ForwardErrors(collate_fn),
            worker_init_fn=_prepare_worker,
            # A loader draws a base seed whenever it starts. A generator of its own keeps this from
            # advancing the global generator, which is restored when a run is resumed.
            generator=torch.Generator(),
            **options,
        )

    @property
    def source(self) -> Dataset[Any]:
        """Dataset that the loader was created with."""
        assert isinstance(self.dataset, _CatchErrors)
        return self.dataset.dataset

    def with_source(
        self, dataset: Dataset[Any], adapt: Callable[[Callable[[Any], T]], Callable[[Any], T]]
    ) -> ErrorForwardingDataLoader[T]:
        """Return a loader of another dataset with the same batches.

        Args:
            dataset: dataset with the same indices.
            adapt: function from the collate function to that of the new loader.

        Returns:
            A new loader, which shares the sampler.
        """
        assert isinstance(self.collate_fn, _ForwardErrors)
        return ErrorForwardingDataLoader(
            dataset,
            adapt(self.collate_fn.collate_fn),
            batch_size=self.batch_size,
            sampler=self.sampler,
            drop_last=self.drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.persistent_workers,
            pin_memory=self.pin_memory,
        )

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        """Iterate over the batches. Worker processes begin to read immediately.

        Returns:
            The batches. The iterator raises a `UserError` of the dataset, from this process or a
            worker, and a `WorkerError` if a worker process was killed.
        """
        with translate_worker_errors():
            return _forward_errors(super().__iter__())


def _forward_errors(batches: Iterator[T | UserError]) -> Iterator[T]:
    """Yield the batches of a loader, or raise the error that takes the place of one."""
    with translate_worker_errors():
        for batch in batches:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def as_is(item: T) -> T:
    """Return an item unchanged; the collate function of a loader that makes no batches.

    Args:
        item: item of the dataset.

    Returns:
        The same item.
    """
    return item


class _CatchErrors(Dataset[Any]):
    """Dataset that returns a `UserError` instead of raising it."""

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
    """Collate function that returns the first error among the samples of a batch.

    Worker processes return batches in shared memory that is used again.
    """

    def __init__(self, collate_fn: Callable[[Any], Any]) -> None:
        self.collate_fn = collate_fn
        self._blocks = BlockPool()

    def __call__(self, items: Any) -> Any:
        samples: Sequence[Any] = items if isinstance(items, list) else [items]
        error = next((item for item in samples if isinstance(item, UserError)), None)
        if error is not None:
            return error
        batch = self.collate_fn(items)
        is_shared = isinstance(batch, Batch) and can_share_batches()
        return self._blocks.share(batch) if is_shared else batch


def _prepare_worker(_: int) -> None:
    """Set OpenCV to one thread, since the workers already use all cores, and keep memory."""
    import cv2

    cv2.setNumThreads(0)
    keep_freed_memory()
