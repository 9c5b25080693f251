"""A run given away: weights, configuration, results and a card, in a folder or on the hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

from densemtl.config.experiment import (
    CONFIG,
    ComponentConfig,
    ExperimentConfig,
    parse_saved_experiment,
)
from densemtl.config.translation import restore_parameters
from densemtl.engine.checkpoint import (
    WEIGHTS_NAME,
    SavedWeights,
    compute_tensors_hash,
    find_weights_file,
    load_weights,
    save_tensors,
)
from densemtl.engine.trainer import PANELS
from densemtl.errors import CheckpointError, ResultsError
from densemtl.hub.model_card import IMAGE_NAME, write_model_card
from densemtl.io.atomic import atomic_write
from densemtl.results.results import RESULTS_FILE, Results, load_results

SHAREABLE_DATASETS = ("synthetic",)
"""Datasets whose pictures anyone may see."""


def save_pretrained(
    run_path: str | Path,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    license: str = "other",
    panels: bool | None = None,
) -> Path:
    """Write a run's best weights, configuration, results and a model card to a folder.

    Paths of this machine are left out. Other files of the folder stay as they are.

    Args:
        run_path: a run's folder or a `.safetensors` file of this project.
        folder: made if need be.
        repo_id: "owner/name" on the hub, for the card's example.
        license: of the weights, by its hub identifier, which the data's licence may bind.
        panels: show pictures of the validation set; None for those of synthetic data alone.

    Returns:
        The folder.

    Raises:
        CheckpointError: weights that are missing or corrupt.
        ResultsError: results that are corrupt, or those of other weights.
    """
    file, folder = find_weights_file(Path(run_path)), Path(folder)
    weights = load_weights(file)
    experiment = _strip_paths(parse_saved_experiment(weights.config_yaml, file))
    results = _load_matching_results(file, weights)
    shown = experiment.data.name in SHAREABLE_DATASETS if panels is None else panels
    picture = _find_last_image(file.parent) if shown else None
    _write_files(folder, experiment, weights, results)
    if picture is not None:
        with atomic_write(folder / IMAGE_NAME) as tmp_path:
            shutil.copyfile(picture, tmp_path)
    name = repo_id or folder.resolve().name
    write_model_card(folder, name, experiment, results, license)
    return folder


def push_to_hub(
    run_path: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    license: str = "other",
    panels: bool | None = None,
    token: str | None = None,
) -> str:
    """Publish a run on the hub, as `save_pretrained` writes it.

    Args:
        run_path: a run's folder or a `.safetensors` file of this project.
        repo_id: "owner/name"; made if need be.
        private: of a repository that is made.
        license: as for `save_pretrained`.
        panels: as for `save_pretrained`.
        token: of the hub; None for the one that was logged in with.

    Returns:
        The repository's address.

    Raises:
        CheckpointError: weights that are missing or corrupt, or a hub that refuses them.
        ResultsError: results that are corrupt, or those of other weights.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as scratch:
        folder = save_pretrained(run_path, scratch, repo_id=repo_id, license=license, panels=panels)
        api = HfApi(token=token)
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="densemtl")
        except Exception as error:  # of network, login and hub, raised by several libraries
            reason = shorten(f"{type(error).__name__}: {error}", 160)
            raise CheckpointError(
                f"{repo_id}: not published ({reason}); check network and login (`hf auth login`)"
            ) from error
    return str(address)


def _write_files(
    folder: Path, experiment: ExperimentConfig, weights: SavedWeights, results: Results | None
) -> None:
    config = experiment.to_yaml()
    save_tensors(folder / WEIGHTS_NAME, SavedWeights(weights.tensors, config))
    with atomic_write(folder / CONFIG) as tmp_path:
        tmp_path.write_text(config, encoding="utf-8")
    if results is not None:
        results.save(folder / RESULTS_FILE)


def _strip_paths(experiment: ExperimentConfig) -> ExperimentConfig:
    """The folders of this machine mean nothing elsewhere, and nobody needs to know them."""
    options = {key: _strip_parents(value) for key, value in experiment.data.options.items()}
    changed: dict[str, Any] = {
        "data": ComponentConfig(name=experiment.data.name, **options),
        "baselines": "none",
    }
    if isinstance(experiment.init_from, dict):
        changed["init_from"] = "none"
    return experiment.model_copy(update=changed)


def _strip_parents(value: Any) -> Any:
    """Of an absolute path; anything else stays."""
    if isinstance(value, dict):
        return {key: _strip_parents(item) for key, item in value.items()}
    absolute = isinstance(value, str) and Path(value).expanduser().is_absolute()
    return Path(value).name if absolute else value


def _load_matching_results(file: Path, weights: SavedWeights) -> Results | None:
    """Those beside the weights, if they are of these weights."""
    if not (file.parent / RESULTS_FILE).exists():
        return None
    results = load_results(file.parent)
    old_names = restore_parameters(weights.tensors, weights.decoder)
    if results.weights_hash not in (
        compute_tensors_hash(weights.tensors),
        compute_tensors_hash(old_names),
    ):
        beside = file.parent / RESULTS_FILE
        advice = f"evaluate again: tools/evaluate.py {file} --output {beside}"
        raise ResultsError(f"{beside}: scores of other weights than {file.name}; {advice}")
    singles = {
        task: single.model_copy(update={"file": Path(single.file).name})
        for task, single in results.baselines.items()
    }
    return results.model_copy(update={"baselines": singles})


def _find_last_image(folder: Path) -> Path | None:
    pictures: Sequence[Path] = sorted((folder / PANELS).glob("*.png"))
    return pictures[-1] if pictures else None
