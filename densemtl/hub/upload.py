"""Publication of a run as a folder or on the hub: weights, configuration, results, model card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

from densemtl.config.experiment import ExperimentConfig, parse_saved_experiment
from densemtl.config.input_paths import CONFIG, WEIGHTS_NAME, find_weights_file
from densemtl.config.shipped_models import get_model_name
from densemtl.config.translation import restore_parameters
from densemtl.engine.trainer import PANELS
from densemtl.engine.weights_file import (
    SavedWeights,
    compute_tensors_hash,
    load_weights,
    save_tensors,
)
from densemtl.errors import CheckpointError, ResultsError
from densemtl.hub.half_precision import round_to_half
from densemtl.hub.model_card import IMAGE_NAME, write_model_card
from densemtl.io.atomic import atomic_write
from densemtl.io.paths import parse_path
from densemtl.results.results import RESULTS_FILE, Results, load_results

SHAREABLE_DATASETS = ("synthetic",)
"""Datasets whose images may be published."""


def save_pretrained(
    run_path: str | Path,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    license: str = "other",
    panels: bool | None = None,
    half: bool = False,
    notes: str = "",
    results: Results | None = None,
) -> Path:
    """Write the best weights, the configuration, the results and a model card of a run to a folder.

    Paths of this machine are removed from all files. Other files in the folder are not changed.

    With `half`, weights are rounded to half precision (`densemtl.hub.half_precision`), and
    converted to single precision when they are loaded. The results of the run are those before
    rounding, as the card states, unless `results` of the rounded weights are given.

    Args:
        run_path: a run folder, or a `.safetensors` file that this project wrote.
        folder: folder to write; created if it does not exist.
        repo_id: name of the repository on the hub, "owner/name", for the example in the card; by
            default, the name of the folder, or of the shipped model if the folder is that of one.
        license: license of the weights, as an identifier of the hub; the license of the dataset may
            restrict the choice.
        panels: whether to include an image of predictions on the validation split; by default, only
            for synthetic datasets.
        half: whether to store weights in half precision.
        notes: Markdown that the card ends with, such as limitations and licenses of the data.
        results: results of the stored weights; by default, those next to the weights of the run.

    Returns:
        The folder.

    Raises:
        CheckpointError: if the weights are missing or corrupt, or too large for half precision.
        ResultsError: if the results are corrupt, or belong to other weights.

    Example:
        Random weights stand in for those of a run.

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
        >>> with TemporaryDirectory() as run:
        ...     save_weights(Path(run) / "best.safetensors", model, experiment.to_yaml())
        ...     folder = save_pretrained(run, Path(run) / "published", license="mit")
        ...     sorted(file.name for file in folder.iterdir())
        ['README.md', 'config.yaml', 'model.safetensors']
    """
    file, folder = find_weights_file(parse_path(run_path)), parse_path(folder)
    weights = load_weights(file)
    experiment = _strip_paths(parse_saved_experiment(weights.config_yaml, file))
    if results is None:
        results = _load_matching_results(file, weights)
    if half:
        weights = replace(weights, tensors=round_to_half(weights.tensors))
        results = _relate_to_rounded(results, weights) if results else None
    results = _strip_baselines(results) if results else None
    with_image = experiment.data.name in SHAREABLE_DATASETS if panels is None else panels
    image = _find_last_image(file.parent) if with_image else None
    _write_files(folder, experiment, weights, results)
    if image is not None:
        with atomic_write(folder / IMAGE_NAME) as tmp_path:
            shutil.copyfile(image, tmp_path)
    name = repo_id or get_model_name(folder)
    write_model_card(folder, name, experiment, results, license, half=half, notes=notes)
    return folder


def push_to_hub(
    run_path: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    license: str = "other",
    panels: bool | None = None,
    half: bool = False,
    notes: str = "",
    results: Results | None = None,
    token: str | None = None,
) -> str:
    """Publish a run on the Hugging Face hub, with the files of `save_pretrained`.

    Args:
        run_path: a run folder, or a `.safetensors` file that this project wrote.
        repo_id: name of the repository, "owner/name"; created if it does not exist.
        private: whether a created repository is private.
        license: as for `save_pretrained`.
        panels: as for `save_pretrained`.
        half: as for `save_pretrained`.
        notes: as for `save_pretrained`.
        results: as for `save_pretrained`.
        token: access token of the hub; by default, that of the current login.

    Returns:
        The URL of the repository.

    Raises:
        CheckpointError: if the weights are missing, corrupt or too large for half precision, or if
            the upload fails.
        ResultsError: if the results are corrupt, or belong to other weights.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as temporary:
        folder = save_pretrained(
            run_path,
            temporary,
            repo_id=repo_id,
            license=license,
            panels=panels,
            half=half,
            notes=notes,
            results=results,
        )
        api = HfApi(token=token)
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message="densemtl",
                ignore_patterns=[".*"],  # temporary files
            )
        except Exception as error:  # several libraries raise errors of network, login and hub
            reason = shorten(f"{type(error).__name__}: {error}", 160)
            raise CheckpointError(
                f"{repo_id}: publication failed ({reason}); check network and login"
                " (`hf auth login`)"
            ) from error
    return str(address)


def _write_files(
    folder: Path, experiment: ExperimentConfig, weights: SavedWeights, results: Results | None
) -> None:
    """Write weights, configuration and results."""
    config = experiment.to_yaml()
    save_tensors(folder / WEIGHTS_NAME, SavedWeights(weights.tensors, config))
    with atomic_write(folder / CONFIG) as tmp_path:
        tmp_path.write_text(config, encoding="utf-8")
    if results is not None:
        results.save(folder / RESULTS_FILE)


def _strip_paths(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment without paths of this machine, which are useless elsewhere."""
    values = _strip_parents(experiment.model_dump(mode="json"))
    values["loader"].pop("cache_dir")
    values["baselines"] = "none"
    values["teachers"] = {}
    if experiment.init_from != "baselines":
        values["init_from"] = "none"
    return ExperimentConfig.model_validate(values)


def _strip_parents(value: Any) -> Any:
    """Reduce absolute paths to their last part; other values are returned unchanged."""
    if isinstance(value, dict):
        return {
            key: item if key == "class_names" else _strip_parents(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_strip_parents(item) for item in value]
    absolute = isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute())
    return Path(value).name if absolute else value


def _load_matching_results(file: Path, weights: SavedWeights) -> Results | None:
    """Return the results next to a weights file, after checking that they belong to it."""
    if not (file.parent / RESULTS_FILE).exists():
        return None
    results = load_results(file.parent)
    old_names = restore_parameters(weights.tensors, weights.decoder)
    if results.weights_hash not in (
        compute_tensors_hash(weights.tensors),
        compute_tensors_hash(old_names),
    ):
        results_file = file.parent / RESULTS_FILE
        hint = f"evaluate again: densemtl evaluate {file} --output {results_file}"
        raise ResultsError(f"{results_file}: results of other weights than {file.name}; {hint}")
    return results


def _strip_baselines(results: Results) -> Results:
    """Return the results with the last part of the paths of their baselines only."""
    baselines = {
        task: baseline.model_copy(update={"file": Path(baseline.file).name})
        for task, baseline in results.baselines.items()
    }
    return results.model_copy(update={"baselines": baselines})


def _relate_to_rounded(results: Results, weights: SavedWeights) -> Results:
    """Return results with the hash of rounded weights, as they have after they are loaded."""
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in weights.tensors.items()
    }
    rounded = compute_tensors_hash(tensors)
    if results.weights_hash == rounded:
        return results
    return results.model_copy(
        update={"weights_hash": rounded, "rounded_from": results.weights_hash}
    )


def _find_last_image(folder: Path) -> Path | None:
    """Return the image of predictions of the last validation of a run."""
    images: Sequence[Path] = sorted((folder / PANELS).glob("*.png"))
    return images[-1] if images else None
