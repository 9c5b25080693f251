"""Where shards lie, in a folder or behind a URL, and the index that lists them."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from densemtl.config.sections import Section
from densemtl.errors import DataError
from densemtl.io.atomic import atomic_write
from densemtl.registry import format_validation_errors
from densemtl.types import Split

INDEX_NAME = "shards.json"

URL_SCHEMES = ("file", "http", "https", "gs", "hf")
"""What is fetched from. webdataset knows `pipe:` besides, which runs a command: a configuration
may have come with somebody's checkpoint, and must not."""


class Shard(Section):
    """A tar file, which lies beside the index and nowhere else, and the images in it."""

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*\.tar$")]
    ids: tuple[str, ...]


class ShardIndexFile(Section):
    """What `shards.json` holds: the tasks with their default options, and the splits' shards."""

    offers: dict[str, dict[str, Any]]
    splits: dict[Split, tuple[Shard, ...]]


@dataclass(frozen=True)
class ShardStore:
    """Where shards come from: a folder, or a URL and a folder for what was fetched."""

    root: str
    cache_dir: Path
    max_cached_shards: int

    def read_index(self) -> ShardIndexFile:
        """What `shards.json` holds; of a URL asked for anew.

        Raises:
            DataError: it is not there, is none, or lists files elsewhere.
        """
        file = (
            self._get_cache_path(INDEX_NAME)
            if self._is_remote()
            else Path(self.root).expanduser() / INDEX_NAME
        )
        if self._is_remote():
            self._download(INDEX_NAME, file)
        hint = "make them by `python datasets/make_shards.py`, or set data.root"
        try:
            return ShardIndexFile.model_validate_json(file.read_bytes())
        except ValidationError as error:
            reason = format_validation_errors(error, "", ShardIndexFile)[0]
            raise DataError(f"{file}: no index of shards ({reason}); {hint}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: no index of shards; {hint}") from error

    def fetch(self, name: str) -> Path:
        """A shard's file, which is fetched where it has not been."""
        if not self._is_remote():
            file = Path(self.root).expanduser() / name
            if not file.exists():
                raise DataError(
                    f"{file}: missing, though {INDEX_NAME} lists it; write the shards again"
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
        scheme, sign, location = self.root.partition("://")
        if sign and (scheme not in URL_SCHEMES or ".." in location.split("/")):
            choices = ", ".join(f"{name}://" for name in URL_SCHEMES)
            raise DataError(
                f"data.root: {self.root!r} is not fetched: give a folder, or {choices}.."
            )
        return bool(sign)

    def _get_cache_path(self, name: str) -> Path:
        return self.cache_dir / self.root.replace("://", "/").strip("/") / name

    def _download(self, name: str, file: Path) -> None:
        try:
            from webdataset.gopen import gopen
        except ImportError as error:
            raise DataError(f'{self.root}: needs `pip install "densemtl[shards]"`') from error
        try:
            with gopen(f"{self.root.rstrip('/')}/{name}") as stream, atomic_write(file) as tmp_path:
                tmp_path.write_bytes(stream.read())
        except Exception as error:  # of networks and of the programs that webdataset calls
            raise DataError(f"{self.root}/{name}: cannot be fetched ({error})") from error

    def _evict(self, newest: Path) -> None:
        """Files in use stay readable until they are closed."""
        shards = sorted(newest.parent.glob("*.tar"), key=lambda shard: shard.stat().st_atime_ns)
        for file in [shard for shard in shards if shard != newest][
            : max(len(shards) - self.max_cached_shards, 0)
        ]:
            file.unlink(missing_ok=True)
