"""Index of shards, and access to shards in a folder or at a URL."""

from __future__ import annotations

import fcntl
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import IO, Annotated, Any

from pydantic import Field, ValidationError

from densemtl.config.saved_settings import UNCONFIRMED
from densemtl.config.sections import Section
from densemtl.errors import DataError
from densemtl.io.atomic import atomic_write
from densemtl.io.bounded import MAX_TEXT_BYTES, read_bytes
from densemtl.io.paths import describe_missing
from densemtl.registry import format_validation_errors
from densemtl.types import Split

INDEX_NAME = "shards.json"

URL_SCHEMES = ("file", "http", "https", "gs", "hf")
"""Allowed schemes of URLs. webdataset also supports `pipe:`, which runs a command. It is not
allowed, since a configuration may come from an untrusted checkpoint."""


_URL_LOCATION = re.compile(r"[\w.~:/@=+,%-]+", re.ASCII)
"""Characters of a URL after its scheme: those of RFC 3986 that have no meaning in a shell and that
curl does not expand. The name of a file is appended, so that there is no query."""


class Shard(Section):
    """Entry of the index for one shard.

    Attributes:
        file: name of the tar file, which must be in the folder of the index.
        ids: ids of the images in the shard, in order.
    """

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*\.tar$")]
    ids: tuple[str, ...]


class ShardIndexFile(Section):
    """Content of `shards.json`.

    Attributes:
        offers: {task name: default options of the task}.
        splits: {split: its shards in order}.
    """

    offers: dict[str, dict[str, Any]]
    splits: dict[Split, tuple[Shard, ...]]


@dataclass(frozen=True)
class ShardStore:
    """Source of shards: a folder, or a URL with a local cache.

    Attributes:
        root: folder or URL that contains `shards.json`.
        cache_dir: folder for files that are downloaded from a URL.
        max_cached_shards: number of downloaded shards to keep on disk.
    """

    root: str
    cache_dir: Path
    max_cached_shards: int

    def read_index(self) -> ShardIndexFile:
        """Read `shards.json`, which is downloaded again at each call if `root` is a URL.

        Returns:
            The content of the index.

        Raises:
            DataError: if the index is missing or invalid, or lists files outside its folder.
        """
        file = (
            self._get_cache_path(INDEX_NAME) if self._is_remote() else Path(self.root) / INDEX_NAME
        )
        if self._is_remote():
            self._download(INDEX_NAME, file)
        index = self._parse_index(file)
        for task, options in index.offers.items():
            if ":" in str(options.get("kind", "")):  # the author of the shards is not the user
                raise DataError(
                    f"{file}: offers.{task}.kind: {shorten(str(options['kind']), 100)} is a custom"
                    " class, which an index must not name; remove it, and set the kind in `tasks`"
                    " of your configuration"
                )
        return index

    @staticmethod
    def _parse_index(file: Path) -> ShardIndexFile:
        hint = "create shards by `densemtl make_shards`, or set data.root"
        if not file.exists():
            raise DataError(f"{describe_missing(file, 'no index of shards')}; {hint}")
        try:
            return ShardIndexFile.model_validate_json(read_bytes(file, MAX_TEXT_BYTES))
        except ValidationError as error:
            reason = format_validation_errors(error, "", ShardIndexFile)[0]
            raise DataError(f"{file}: no index of shards ({reason}); {hint}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: no index of shards; {hint}") from error

    def fetch(self, name: str) -> Path:
        """Return the file of a shard, and download it first if necessary.

        Args:
            name: file name of the shard.

        Returns:
            Path of the local file.

        Raises:
            DataError: if the file is missing or cannot be downloaded.
        """
        if not self._is_remote():
            file = Path(self.root) / name
            if not file.exists():
                raise DataError(
                    f"{file}: missing, although {INDEX_NAME} lists it; write the shards again"
                )
            return file
        file = self._get_cache_path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                self._download(name, file)
                self._evict(file)
        return file

    def _is_remote(self) -> bool:
        if self.root.startswith(UNCONFIRMED):
            url = shorten(self.root.removeprefix(UNCONFIRMED), 100)
            raise DataError(
                f"data.root: the saved configuration names the URL {url}; pass data.root=URL to"
                " read from there, or a folder"
            )
        scheme, sign, location = self.root.partition("://")
        if sign and (
            scheme not in URL_SCHEMES
            or ".." in location.split("/")
            or not _URL_LOCATION.fullmatch(location)
        ):
            choices = ", ".join(f"{name}://" for name in URL_SCHEMES)
            raise DataError(
                f"data.root: {self.root!r} is not allowed: give a folder, or {choices}.."
            )
        return bool(sign)

    def _get_cache_path(self, name: str) -> Path:
        return self.cache_dir / self.root.replace("://", "/").strip("/") / name

    def _download(self, name: str, file: Path) -> None:
        try:
            from webdataset.gopen import gopen
        except ImportError as error:
            raise DataError(f'{self.root}: run `pip install "densemtl[shards]"` first') from error
        try:
            with gopen(f"{self.root.rstrip('/')}/{name}") as stream, atomic_write(file) as tmp_path:
                _copy(stream, tmp_path, MAX_TEXT_BYTES if name == INDEX_NAME else None)
        except DataError:
            raise
        except Exception as error:  # webdataset raises exceptions of many types.
            raise DataError(
                f"{self.root}/{name}: cannot be downloaded ({error}); check data.root and the"
                " network"
            ) from error

    def _evict(self, newest: Path) -> None:
        """Delete the least recently used shards; open files stay readable until they are closed."""
        shards = sorted(newest.parent.glob("*.tar"), key=lambda shard: shard.stat().st_atime_ns)
        for file in [shard for shard in shards if shard != newest][
            : max(len(shards) - self.max_cached_shards, 0)
        ]:
            file.unlink(missing_ok=True)


def _copy(stream: IO[bytes], file: Path, limit: int | None) -> None:
    """Write a stream to a file in parts; raise a `DataError` if it exceeds a limit in bytes."""
    size = 0
    with file.open("wb") as output:
        while data := stream.read(2**20):
            size += len(data)
            if limit is not None and size > limit:
                raise DataError(
                    f"{INDEX_NAME}: larger than {limit >> 20} MB; use another data.root"
                )
            output.write(data)
