"""Loading of published models from folders and from the Hugging Face hub.

No downloaded file can run code: no pickles are loaded, and no code is imported from a download.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from densemtl.config.input_paths import CONFIG, WEIGHTS_NAME
from densemtl.config.shipped_models import find_model
from densemtl.engine.loading import TrainedModel, load_trained_model
from densemtl.errors import CheckpointError
from densemtl.io.paths import parse_path
from densemtl.results.results import RESULTS_FILE

ALLOW_PATTERNS = (WEIGHTS_NAME, RESULTS_FILE, CONFIG, "README.md")
"""The only files of a repository that are downloaded."""

_REPO_ID_PATTERN = re.compile(r"[\w.-]+/[\w.-]+")


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    trust_custom_code: bool = False,
) -> TrainedModel:
    """Load a published model.

    Args:
        source: a folder that `save_pretrained` or a run wrote, the name of a shipped model,
            "densemtl/lite0-six", or the name of a hub repository, "owner/name".
        revision: branch, tag or commit of the repository.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
        overrides: `key=value` changes to the configuration, such as `data.root=/data`.
        trust_custom_code: whether the configuration may name custom classes,
            `package.module:Class`. They are imported from packages that are installed on this
            machine, never from the folder or the repository.

    Returns:
        The model, its tasks and its configuration.

    Raises:
        CheckpointError: if the source does not exist, cannot be downloaded, or is corrupt.
        ConfigError: if the configuration is invalid, or if it names custom classes without
            `trust_custom_code`.

    Example:
        See `save_pretrained` for how the folder is written.

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from densemtl.config.experiment import ExperimentConfig
        >>> from densemtl.engine.weights_file import save_weights
        >>> from densemtl.factory import build_model, build_tasks
        >>> experiment = ExperimentConfig.model_validate({
        ...     "tasks": ["depth"],
        ...     "data": {"name": "synthetic"},
        ...     "backbone": {"name": "test_resnet"},
        ...     "decoder": {"name": "hard_sharing"},
        ...     "head": {"name": "linear"},
        ... })
        >>> model = build_model(experiment, build_tasks(experiment), pretrained=False)
        >>> with TemporaryDirectory() as folder:
        ...     save_weights(Path(folder) / "model.safetensors", model, experiment.to_yaml())
        ...     loaded = from_pretrained(folder, device="cpu")
        >>> [task.name for task in loaded.tasks]
        ['depth']
    """
    folder = parse_path(source)
    if revision is None:
        folder = find_model(folder)
    if not folder.exists():
        folder = download(str(source), revision)
    return load_trained_model(folder, overrides, device, trust_custom_code=trust_custom_code)


def download(repo_id: str, revision: str | None = None) -> Path:
    """Download a repository of the Hugging Face hub, unless it is in the cache.

    Args:
        repo_id: name of the repository, "owner/name".
        revision: branch, tag or commit; the main branch by default.

    Returns:
        The folder of the repository in the cache.

    Raises:
        CheckpointError: if the name is invalid or the download fails.
    """
    if not _REPO_ID_PATTERN.fullmatch(repo_id):
        raise CheckpointError(
            f"{repo_id}: no such folder, and not the name of a hub repository; pass a folder or"
            " owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=[*ALLOW_PATTERNS]))
    except Exception as error:  # several libraries raise errors of network, cache and files
        reason = shorten(f"{type(error).__name__}: {error}", 160)
        raise CheckpointError(
            f"{repo_id}: no such folder, and the download from the hub failed ({reason}); check"
            " name and network, log in if the repository is private, or pass a folder"
        ) from error
