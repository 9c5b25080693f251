"""A published network back, from a folder or the hub; no code is unpickled, nor run from there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from densemtl.config.experiment import CONFIG
from densemtl.config.yaml_loader import parse_yaml
from densemtl.engine.checkpoint import PUBLISHED, load_weights, weights_file
from densemtl.errors import CheckpointError, ConfigError
from densemtl.engine.loading import Loaded, load
from densemtl.config.renamed_keys import LISTS
from densemtl.results.results import RESULTS

WANTED = (PUBLISHED, RESULTS, CONFIG, "README.md")
"""The only files that are fetched."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    own_components: bool = False,
) -> Loaded:
    """Load a published network.

    Args:
        source: a folder that `save_pretrained` or a run wrote, or a hub repository, "owner/name".
        revision: branch, tag or commit of the repository.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        overrides: `key=value` changes to the configuration, such as data.root=...
        own_components: allow the configuration to name classes, `package.module:Class`, which are
            then imported from what is installed here; never from the folder or repository itself.

    Raises:
        CheckpointError: not there, not to be had, corrupt.
        ConfigError: a configuration that asks for own components without leave, or is wrong.
    """
    folder = Path(source) if Path(source).exists() else fetch(str(source), revision)
    if not own_components:
        _refuse_own_components(weights_file(folder))
    return load(folder, overrides, device)


def fetch(repository: str, revision: str | None = None) -> Path:
    """The folder of a repository, fetched, or as it lies in the cache already.

    Raises:
        CheckpointError: it cannot be had.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise CheckpointError(f"{repository}: no such folder, and no hub repository, owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[*WANTED]))
    except Exception as error:  # of network, cache and files, raised by several libraries
        reason = shorten(f"{type(error).__name__}: {error}", 160)
        raise CheckpointError(
            f"{repository}: no such folder, and not to be had from the hub ({reason}); check name"
            " and network, log in if it is private, or give a folder"
        ) from error


def _refuse_own_components(file: Path) -> None:
    named = sorted(set(_own_components(parse_yaml(load_weights(file).config, str(file)))))
    if named:
        raise ConfigError(
            f"{file}: its configuration names {', '.join(named)}, code that would be imported from"
            " this machine; say own_components=True if you trust it"
        )


def _own_components(values: Any) -> Iterator[str]:
    """Every component that is `package.module:Class`, however deep, alone or with options."""
    if isinstance(values, dict):
        for key in ("name", "kind", "protocol"):
            if ":" in str(values.get(key, "")):
                yield str(values[key])
        for key in LISTS:
            entries = values.get(key)
            for each in entries if isinstance(entries, list) else ():
                if isinstance(each, str) and ":" in each:
                    yield each
    inside = values.values() if isinstance(values, dict) else values
    for each in inside if isinstance(values, dict | list) else ():
        yield from _own_components(each)
