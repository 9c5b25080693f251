"""A run given away: weights, configuration, results and a card, in a folder or on the hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

from densemtl.io.atomic import replacing
from densemtl.config.experiment import CONFIG, Component, Experiment, read_saved
from densemtl.engine.checkpoint import (
    PUBLISHED,
    Weights,
    load_weights,
    save_tensors,
    tensors_hash,
    weights_file,
)
from densemtl.engine.trainer import PANELS
from densemtl.errors import CheckpointError, ResultsError
from densemtl.hub.model_card import PICTURE, write_card
from densemtl.config.renamed_keys import restore_parameters
from densemtl.results.results import RESULTS, Results, load_results

HARMLESS_DATA = ("synthetic",)
"""Datasets whose pictures anyone may see."""


def save_pretrained(
    run: str | Path,
    folder: str | Path,
    *,
    repository: str | None = None,
    licence: str = "other",
    panels: bool | None = None,
) -> Path:
    """Write a run's best weights, configuration, results and a model card to a folder.

    Paths of this machine are left out. Other files of the folder stay as they are.

    Args:
        run: a run's folder or a `.safetensors` file of this project.
        folder: made if need be.
        repository: "owner/name" on the hub, for the card's example.
        licence: of the weights, by its hub identifier, which the data's licence may bind.
        panels: show pictures of the validation set; None for those of synthetic data alone.

    Returns:
        The folder.

    Raises:
        CheckpointError: weights that are missing or corrupt.
        ResultsError: results that are corrupt, or those of other weights.
    """
    file, folder = weights_file(Path(run)), Path(folder)
    weights = load_weights(file)
    experiment = _without_paths(read_saved(weights.config, file))
    results = _results(file, weights)
    shown = experiment.data.name in HARMLESS_DATA if panels is None else panels
    picture = _last_picture(file.parent) if shown else None
    _write(folder, experiment, weights, results)
    if picture is not None:
        with replacing(folder / PICTURE) as draft:
            shutil.copyfile(picture, draft)
    name = repository or folder.resolve().name
    write_card(folder, name, experiment, results, licence)
    return folder


def push_to_hub(
    run: str | Path,
    repository: str,
    *,
    private: bool = True,
    licence: str = "other",
    panels: bool | None = None,
    token: str | None = None,
) -> str:
    """Publish a run on the hub, as `save_pretrained` writes it.

    Args:
        run: a run's folder or a `.safetensors` file of this project.
        repository: "owner/name"; made if need be.
        private: of a repository that is made.
        licence: as for `save_pretrained`.
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
        folder = save_pretrained(
            run, scratch, repository=repository, licence=licence, panels=panels
        )
        api = HfApi(token=token)
        try:
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="densemtl")
        except Exception as error:  # of network, login and hub, raised by several libraries
            reason = shorten(f"{type(error).__name__}: {error}", 160)
            raise CheckpointError(
                f"{repository}: not published ({reason}); check network and login (`hf auth login`)"
            ) from error
    return str(address)


def _write(folder: Path, experiment: Experiment, weights: Weights, results: Results | None) -> None:
    config = experiment.to_yaml()
    save_tensors(folder / PUBLISHED, Weights(weights.tensors, config))
    with replacing(folder / CONFIG) as draft:
        draft.write_text(config, encoding="utf-8")
    if results is not None:
        results.save(folder / RESULTS)


def _without_paths(experiment: Experiment) -> Experiment:
    """The folders of this machine mean nothing elsewhere, and nobody needs to know them."""
    options = {key: _last_part(value) for key, value in experiment.data.options.items()}
    changed: dict[str, Any] = {
        "data": Component(name=experiment.data.name, **options),
        "baselines": "none",
    }
    if isinstance(experiment.init_from, dict):
        changed["init_from"] = "none"
    return experiment.model_copy(update=changed)


def _last_part(value: Any) -> Any:
    """Of an absolute path; anything else stays."""
    if isinstance(value, dict):
        return {key: _last_part(each) for key, each in value.items()}
    absolute = isinstance(value, str) and Path(value).expanduser().is_absolute()
    return Path(value).name if absolute else value


def _results(file: Path, weights: Weights) -> Results | None:
    """Those beside the weights, if they are of these weights."""
    if not (file.parent / RESULTS).exists():
        return None
    results = load_results(file.parent)
    old_names = restore_parameters(weights.tensors, weights.decoder)
    if results.weights not in (tensors_hash(weights.tensors), tensors_hash(old_names)):
        beside = file.parent / RESULTS
        advice = f"evaluate again: tools/evaluate.py {file} --output {beside}"
        raise ResultsError(f"{beside}: scores of other weights than {file.name}; {advice}")
    singles = {
        task: single.model_copy(update={"file": Path(single.file).name})
        for task, single in results.baselines.items()
    }
    return results.model_copy(update={"baselines": singles})


def _last_picture(folder: Path) -> Path | None:
    pictures: Sequence[Path] = sorted((folder / PANELS).glob("*.png"))
    return pictures[-1] if pictures else None
