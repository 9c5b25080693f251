"""Dataset of samples in tar files, for datasets of many images or larger than the disk.

    root, a folder or its URL
      shards.json                 tasks; shards of each split; image ids of each shard
      train-000000.tar ..         WebDataset's layout: KEY.image.png, KEY.semseg.png, KEY.depth.npy

`densemtl make_shards` writes shards from any dataset. The samples are equal to those of that
dataset; only the order in training differs, since consecutive shards are shuffled together.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.config.constraints import NonNegativeInt, PathText, UserPath
from densemtl.data.base import DenseDataset
from densemtl.data.datasets.shard_index import INDEX_NAME, ShardStore
from densemtl.errors import DataError
from densemtl.io import images
from densemtl.io.array_files import MAX_ARRAY_BYTES, read_npy
from densemtl.io.atomic import atomic_write
from densemtl.io.bounded import check_size
from densemtl.io.paths import parse_path
from densemtl.types import Sample, Split

IMAGE_KEY = "image"

TAR_END = bytes(1024)
"""Last bytes of a complete tar file; tarfile does not notice that a file is truncated."""

MAX_OPEN_INDEXES = 64
"""Number of shards whose table of contents a process keeps in memory."""


class ShardsDataset(DenseDataset):
    """Split of a dataset in shards.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read, from those in the shards.
        root: folder, or URL such as https://.. or gs://.. (requires `densemtl[shards]`).
        cache_dir: folder for shards that are downloaded from a URL.
        max_cached_shards: number of downloaded shards to keep; the least recently used shards are
            deleted first.
        offers: {task: default options}; by default those in the index. Training saves them, so that
            a trained model can be loaded without the index.

    Raises:
        DataError: if the index is missing or cannot be read.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        root: PathText,
        cache_dir: UserPath = Path("~/.cache/densemtl/shards"),
        max_cached_shards: NonNegativeInt = 64,
        offers: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(split, tasks)
        self._store = ShardStore(root, parse_path(cache_dir), max_cached_shards)
        shards = self._store.read_index().splits.get(split, ())
        if not shards:
            raise DataError(
                f"{root}: {INDEX_NAME} lists no shard of {split!r}; write the shards again"
            )
        self._shard_names = [shard.file for shard in shards]
        self.ids = tuple(name for shard in shards for name in shard.ids)
        self.shard_sizes = tuple(len(shard.ids) for shard in shards)
        self._first_indices = np.cumsum([0, *self.shard_sizes])

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Return the tasks and options in the index.

        Args:
            **options: the options of the dataset, of which `offers`, `root` and `cache_dir` are
                read.

        Returns:
            {task name: {option: default value}}.

        Raises:
            DataError: if the index is missing or invalid.
        """
        if (offers := options.get("offers")) is not None:
            return dict(offers)
        folder = parse_path(options.get("cache_dir", "~/.cache/densemtl/shards"))
        return ShardStore(options["root"], folder, 1).read_index().offers

    def __getitem__(self, index: int) -> Sample:
        """Read one sample, and download its shard first if necessary.

        Args:
            index: position in `ids`.

        Returns:
            The sample; a task without a label for this image is absent.

        Raises:
            DataError: if the shard is missing or truncated, or lacks the sample.
        """
        shard = int(np.searchsorted(self._first_indices, index, side="right")) - 1
        file = self._store.fetch(self._shard_names[shard])
        members = _list_members(file, file.stat().st_mtime_ns)
        key = _format_key(index - int(self._first_indices[shard]))
        arrays = {
            name: _read_member(file, member)
            for name, member in members.get(key, {}).items()
            if name in (IMAGE_KEY, *self.tasks)
        }
        if IMAGE_KEY not in arrays:
            raise DataError(f"{file}: no image {key} ({self.ids[index]}); write the shards again")
        image = arrays.pop(IMAGE_KEY)
        _check_arrays(image, arrays, f"{file}: {key}")
        return Sample(image, arrays, self.ids[index])


Member = tuple[int, int, str]
"""(offset in bytes, length in bytes, suffix) of a file in a tar file."""


@lru_cache(maxsize=MAX_OPEN_INDEXES)
def _list_members(file: Path, mtime_ns: int) -> dict[str, dict[str, Member]]:
    """Return {key: {name: member}} of a shard; `mtime_ns` makes the cache follow changes."""
    members: dict[str, dict[str, Member]] = {}
    try:
        with file.open("rb") as handle, tarfile.open(fileobj=handle, mode="r:") as shard:
            handle.seek(-len(TAR_END), io.SEEK_END)
            if handle.read() != TAR_END:
                raise ValueError("the end of the file is missing")
            handle.seek(0)
            for member in shard:
                key, name, suffix = member.name.split(".")
                if not member.isreg() or member.issparse() or member.size < 0:
                    raise ValueError(f"{name} is not a file of known size")
                members.setdefault(key, {})[name] = (member.offset_data, member.size, suffix)
    except Exception as error:  # For broken files, tarfile raises exceptions of many types.
        reason = shorten(str(error) or type(error).__name__, 100)
        raise DataError(f"{file}: no shard, or truncated ({reason}); download it again") from error
    return members


def _read_member(file: Path, member: Member) -> NDArray[Any]:
    offset, length, suffix = member
    check_size(length, MAX_ARRAY_BYTES, file)
    with file.open("rb") as handle:
        handle.seek(offset)
        data = handle.read(length)
    if suffix != "npy":
        return images.decode_image(data, cv2.IMREAD_UNCHANGED, file)
    try:
        return read_npy(io.BytesIO(data), file)
    except DataError:
        raise
    except Exception as error:  # For broken files, numpy raises exceptions of many types.
        raise DataError(f"{file}: an array in it is corrupt; {images.REDOWNLOAD_HINT}") from error


def _check_arrays(image: NDArray[Any], labels: Mapping[str, NDArray[Any]], source: str) -> None:
    """Check types and shapes; the values of labels are checked before training."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"{source}: the image must be 8-bit RGB, found {image.dtype} {image.shape}")
    for task, label in labels.items():
        if label.shape[:2] != image.shape[:2]:
            raise DataError(f"{source}: image and labels differ in size; download it again")
        dimensions = {np.dtype(np.uint8): (2,), np.dtype(np.float32): (2, 3)}
        if label.ndim not in dimensions.get(label.dtype, ()):
            found = f"{label.dtype} {label.shape}"
            raise DataError(f"{source}: {task} must be uint8 or float32 maps, found {found}")


def _format_key(index: int) -> str:
    """Return the key of a sample from its position in the shard."""
    return f"{index:06d}"


def write_shards(
    splits: Sequence[DenseDataset],
    task_defaults: dict[str, Any],
    root: Path,
    images_per_shard: int,
    jpeg: bool,
) -> None:
    """Pack datasets into shards.

    Existing shards are complete, since they are written atomically, and are not written again.
    The index is written last.

    Args:
        splits: datasets to pack, one per split.
        task_defaults: {task name: default options} of the tasks in the datasets.
        root: folder to write to.
        images_per_shard: number of images per shard; the last shard may have fewer.
        jpeg: store images as JPEG of quality 95, which is five times smaller but lossy.

    Raises:
        DataError: if a sample cannot be read.
        OutputError: if a file cannot be written.
    """
    index: dict[str, Any] = {}
    for dataset in splits:
        shards: list[dict[str, Any]] = []
        index[dataset.split] = shards
        for start in range(0, len(dataset), images_per_shard):
            name = f"{dataset.split}-{len(shards):06d}.tar"
            indices = range(start, min(start + images_per_shard, len(dataset)))
            if not (root / name).exists():
                _write_shard(dataset, indices, root / name, jpeg)
            shards.append(
                {"file": name, "ids": [dataset.ids[sample_index] for sample_index in indices]}
            )
    with atomic_write(root / INDEX_NAME) as tmp_path:
        tmp_path.write_text(
            json.dumps({"offers": task_defaults, "splits": index}), encoding="utf-8"
        )


def _write_shard(dataset: DenseDataset, indices: range, file: Path, jpeg: bool) -> None:
    with atomic_write(file) as tmp_path, tarfile.open(tmp_path, "w") as shard:
        for number, index in enumerate(indices):
            sample = dataset[index]
            if sample.image.dtype != np.uint8 or sample.image.shape[2] != 3:
                raise DataError(
                    f"image {sample.id} has {sample.image.shape[2]} channels of"
                    f" {sample.image.dtype}: shards hold 8-bit RGB images; train on the files"
                )
            parts = [(IMAGE_KEY, *_encode(sample.image, ".jpg" if jpeg else ".png"))]
            parts += [(task, *_encode(label, ".png")) for task, label in sample.targets.items()]
            for name, suffix, data in parts:
                member = tarfile.TarInfo(f"{_format_key(number)}.{name}{suffix}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))


def _encode(array: NDArray[Any], suffix: str) -> tuple[str, bytes]:
    if array.dtype != np.uint8:
        memory = io.BytesIO()
        np.save(memory, array)
        return ".npy", memory.getvalue()
    image = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    return suffix, cv2.imencode(suffix, image)[1].tobytes()
