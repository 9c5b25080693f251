"""A published network back, from a folder or the hub; no code is unpickled, nor run from there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from densemtl.config.experiment import CONFIG
from densemtl.config.translation import LISTS
from densemtl.config.yaml_loader import parse_yaml
from densemtl.engine.checkpoint import WEIGHTS_NAME, find_weights_file, load_weights
from densemtl.engine.loading import TrainedModel, load_trained_model
from densemtl.errors import CheckpointError, ConfigError
from densemtl.results.results import RESULTS_FILE

ALLOW_PATTERNS = (WEIGHTS_NAME, RESULTS_FILE, CONFIG, "README.md")
"""The only files that are fetched."""

_REPO_ID_PATTERN = re.compile(r"[\w.-]+/[\w.-]+")


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    trust_custom_code: bool = False,
) -> TrainedModel:
    """Load a published network.

    Args:
        source: a folder that `save_pretrained` or a run wrote, or a hub repository, "owner/name".
        revision: branch, tag or commit of the repository.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        overrides: `key=value` changes to the configuration, such as data.root=...
        trust_custom_code: allow the configuration to name classes, `package.module:Class`, which
            are then imported from what is installed here; never from the folder or repository
            itself.

    Raises:
        CheckpointError: not there, not to be had, corrupt.
        ConfigError: a configuration that asks for own components without leave, or is wrong.
    """
    folder = Path(source) if Path(source).exists() else download(str(source), revision)
    if not trust_custom_code:
        _refuse_custom_code(find_weights_file(folder))
    return load_trained_model(folder, overrides, device)


def download(repo_id: str, revision: str | None = None) -> Path:
    """The folder of a repository, fetched, or as it lies in the cache already.

    Raises:
        CheckpointError: it cannot be had.
    """
    if not _REPO_ID_PATTERN.fullmatch(repo_id):
        raise CheckpointError(f"{repo_id}: no such folder, and no hub repository, owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=[*ALLOW_PATTERNS]))
    except Exception as error:  # of network, cache and files, raised by several libraries
        reason = shorten(f"{type(error).__name__}: {error}", 160)
        raise CheckpointError(
            f"{repo_id}: no such folder, and not to be had from the hub ({reason}); check name"
            " and network, log in if it is private, or give a folder"
        ) from error


def _refuse_custom_code(file: Path) -> None:
    named = sorted(
        set(_find_custom_components(parse_yaml(load_weights(file).config_yaml, str(file))))
    )
    if named:
        raise ConfigError(
            f"{file}: its configuration names {', '.join(named)}, code that would be imported from"
            " this machine; say own_components=True if you trust it"
        )


def _find_custom_components(values: Any) -> Iterator[str]:
    """Every component that is `package.module:Class`, however deep, alone or with options."""
    if isinstance(values, dict):
        for key in ("name", "kind", "protocol"):
            if ":" in str(values.get(key, "")):
                yield str(values[key])
        for key in LISTS:
            entries = values.get(key)
            for item in entries if isinstance(entries, list) else ():
                if isinstance(item, str) and ":" in item:
                    yield item
    inside = values.values() if isinstance(values, dict) else values
    for item in inside if isinstance(values, dict | list) else ():
        yield from _find_custom_components(item)
