"""Samples packed into tar files, for sets of many images, or larger than the disk.

    root, a folder or the URL of one
      shards.json                 the splits' shards, the images in each, and what tasks there are
      train-000000.tar ..         WebDataset's layout: KEY.image.png, KEY.semseg.png, KEY.depth.npy

`datasets/make_shards.py` writes them from any dataset. Samples are the same as that gives, and so
are batches, but for the order of training: neighbouring shards are shuffled together.
"""

from __future__ import annotations

import fcntl
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.atomic import replacing
from densemtl.data.base import DenseDataset, Split
from densemtl.errors import DataError
from densemtl.types import Sample

INDEX = "shards.json"

IMAGE = "image"

END = bytes(1024)
"""Of a whole tar file; tarfile itself takes a cut one for a short one."""

OPEN = 64
"""Shards whose table of contents a process remembers."""


class Shards(DenseDataset):
    """A split of a set of shards.

    Args:
        split: "train" or "val".
        tasks: of those in the shards.
        root: a folder, or a URL such as https://.. or s3://.. (needs `densemtl[shards]`).
        folder: where shards of a URL are kept when they have been fetched.
        keep: how many; those that were not used for longest go first.

    Raises:
        DataError: there is no index, or it cannot be read.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        root: str,
        folder: Path = Path("~/.cache/densemtl/shards"),
        keep: int = 64,
    ) -> None:
        super().__init__(split, tasks)
        self._source = Source(root, folder.expanduser(), keep)
        shards = self._source.index()["splits"][split]
        self._shards = [shard["file"] for shard in shards]
        self.ids = tuple(name for shard in shards for name in shard["ids"])
        self.chunks = tuple(len(shard["ids"]) for shard in shards)
        self._starts = np.cumsum([0, *self.chunks])

    @classmethod
    def offers(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """What the index says."""
        folder = Path(options.get("folder", "~/.cache/densemtl/shards")).expanduser()
        offered: dict[str, dict[str, Any]] = Source(options["root"], folder, 1).index()["offers"]
        return offered

    def __getitem__(self, index: int) -> Sample:
        """Read one sample, fetching its shard if need be.

        Raises:
            DataError: the shard is missing, truncated, or lacks the sample.
        """
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        file = self._source.local(self._shards[shard])
        members = _members(file, file.stat().st_mtime_ns)
        key = _key(index - int(self._starts[shard]))
        arrays = {
            name: _read(file, member)
            for name, member in members.get(key, {}).items()
            if name in (IMAGE, *self.tasks)
        }
        if IMAGE not in arrays:
            raise DataError(f"{file}: no image {key} ({self.ids[index]}); write the shards again")
        return Sample(arrays.pop(IMAGE), arrays, self.ids[index])


@dataclass(frozen=True)
class Source:
    """Where shards come from: a folder, or a URL and a folder for what was fetched."""

    root: str
    folder: Path
    keep: int

    def index(self) -> dict[str, Any]:
        """The parsed `shards.json`; of a URL asked for anew."""
        file = self._fetched(INDEX) if self._remote() else Path(self.root).expanduser() / INDEX
        if self._remote():
            self._fetch(INDEX, file)
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            hint = "make them by `python datasets/make_shards.py`, or set data.root"
            raise DataError(f"{file}: no index of shards; {hint}") from error
        return found

    def local(self, name: str) -> Path:
        """A shard's file, which is fetched where it has not been."""
        if not self._remote():
            file = Path(self.root).expanduser() / name
            if not file.exists():
                raise DataError(f"{file}: missing, though {INDEX} lists it; write the shards again")
            return file
        file = self._fetched(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                self._fetch(name, file)
                self._make_room(file)
        return file

    def _remote(self) -> bool:
        return "://" in self.root

    def _fetched(self, name: str) -> Path:
        return self.folder / self.root.replace("://", "/").strip("/") / name

    def _fetch(self, name: str, file: Path) -> None:
        try:
            from webdataset.gopen import gopen
        except ImportError as error:
            raise DataError(f'{self.root}: needs `pip install "densemtl[shards]"`') from error
        try:
            with gopen(f"{self.root.rstrip('/')}/{name}") as stream, replacing(file) as draft:
                draft.write_bytes(stream.read())
        except Exception as error:  # of networks and of the programs that webdataset calls
            raise DataError(f"{self.root}/{name}: cannot be fetched ({error})") from error

    def _make_room(self, newest: Path) -> None:
        """Files in use stay readable until they are closed."""
        shards = sorted(newest.parent.glob("*.tar"), key=lambda each: each.stat().st_atime_ns)
        for file in [each for each in shards if each != newest][: max(len(shards) - self.keep, 0)]:
            file.unlink(missing_ok=True)


Member = tuple[int, int, str]
"""(offset, length, suffix) of a file in a tar file."""


@lru_cache(maxsize=OPEN)
def _members(file: Path, _: int) -> dict[str, dict[str, Member]]:
    """{key: {name: member}} of a shard, again when it has changed."""
    found: dict[str, dict[str, Member]] = {}
    try:
        with file.open("rb") as handle, tarfile.open(fileobj=handle) as shard:
            handle.seek(-len(END), io.SEEK_END)
            if handle.read() != END:
                raise ValueError("its end is missing")
            handle.seek(0)
            for member in shard:
                key, name, suffix = member.name.split(".")
                found.setdefault(key, {})[name] = (member.offset_data, member.size, suffix)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{file}: no shard, or truncated ({error}); fetch it again") from error
    return found


def _read(file: Path, member: Member) -> NDArray[Any]:
    offset, length, suffix = member
    with file.open("rb") as handle:
        handle.seek(offset)
        data = handle.read(length)
    if suffix == "npy":
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return array
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise DataError(f"{file}: a picture in it is corrupt; fetch it again")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if picture.ndim == 3 else picture


def _key(place: int) -> str:
    """Of a sample by its place in its shard."""
    return f"{place:06d}"


def write_shards(
    splits: Sequence[DenseDataset], offers: dict[str, Any], root: Path, images: int, jpeg: bool
) -> None:
    """Pack datasets; shards that are whole already are left alone.

    Args:
        splits: what to pack, one a split.
        offers: the tasks in them with their default options.
        root: the folder to fill; its index is written last.
        images: in a shard.
        jpeg: images as JPEG of quality 95, five times smaller, and not quite the same.
    """
    index: dict[str, Any] = {}
    for dataset in splits:
        shards: list[dict[str, Any]] = []
        index[dataset.split] = shards
        for start in range(0, len(dataset), images):
            name = f"{dataset.split}-{len(shards):06d}.tar"
            places = range(start, min(start + images, len(dataset)))
            if not (root / name).exists():
                _write_shard(dataset, places, root / name, jpeg)
            shards.append({"file": name, "ids": [dataset.ids[place] for place in places]})
    with replacing(root / INDEX) as draft:
        draft.write_text(json.dumps({"offers": offers, "splits": index}), encoding="utf-8")


def _write_shard(dataset: DenseDataset, places: range, file: Path, jpeg: bool) -> None:
    with replacing(file) as draft, tarfile.open(draft, "w") as shard:
        for number, place in enumerate(places):
            sample = dataset[place]
            parts = [(IMAGE, *_encode(sample.image, ".jpg" if jpeg else ".png"))]
            parts += [(task, *_encode(label, ".png")) for task, label in sample.targets.items()]
            for name, suffix, data in parts:
                member = tarfile.TarInfo(f"{_key(number)}.{name}{suffix}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))


def _encode(array: NDArray[Any], suffix: str) -> tuple[str, bytes]:
    if array.dtype != np.uint8:
        memory = io.BytesIO()
        np.save(memory, array)
        return ".npy", memory.getvalue()
    picture = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    return suffix, cv2.imencode(suffix, picture)[1].tobytes()
