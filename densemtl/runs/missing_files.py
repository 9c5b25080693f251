"""Search for the files of a cache that do not exist yet, which ranks compute together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import Dataset

from densemtl.data.dataloader import ErrorForwardingDataLoader, as_is
from densemtl.distributed.collectives import barrier, get_rank, get_world_size
from densemtl.errors import OutputError
from densemtl.runtime.progress_bar import track_progress

Key = TypeVar("Key")


def iter_missing_chunks(
    chunks: Sequence[Sequence[Key]],
    source: Dataset[Any],
    contains: Callable[[Key], bool],
    *,
    num_workers: int,
    title: str,
    folder: Path,
) -> Iterator[tuple[Sequence[Key], list[Any], int]]:
    """Iterate over the chunks of which a file is missing; each rank gets its share.

    All ranks must call this function, and write the files of a chunk before they take the next one.
    The iteration ends when the files of all ranks exist.

    Args:
        chunks: keys of files that are always computed together, so that their content does not
            depend on which of them exist.
        source: dataset of the items that files are computed from, indexed by the keys.
        contains: function that returns whether the file of a key exists and is up to date.
        num_workers: number of worker processes that read items.
        title: description of the work.
        folder: folder of the files.

    Yields:
        The keys of a chunk, its items, and the number of files of all missing chunks of this rank.

    Raises:
        OutputError: if other ranks do not see the files.
        DataError: if an item cannot be read.
    """

    def has_all(chunk: Sequence[Key]) -> bool:
        return all(map(contains, chunk))

    missing = [chunk for chunk in chunks[get_rank() :: get_world_size()] if not has_all(chunk)]
    if missing:
        batches = ErrorForwardingDataLoader(
            source, as_is, batch_sampler=missing, num_workers=num_workers
        )
        num_files = sum(map(len, missing))
        tracked = track_progress(batches, len(batches), title)
        for chunk, items in zip(missing, tracked, strict=True):
            yield chunk, items, num_files
    barrier()
    if get_world_size() > 1 and not all(map(has_all, chunks)):
        raise OutputError(
            f"{folder}: not visible to all processes: set loader.cache_dir to a folder on a shared"
            " file system"
        )
