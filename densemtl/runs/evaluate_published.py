"""Evaluation of the weights that are published, which may be rounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import compute_weights_hash
from densemtl.hub.half_precision import round_to_half
from densemtl.results.baselines import compare_with
from densemtl.results.results import RESULTS_FILE, Results, load_results
from densemtl.runs.evaluate_run import evaluate_model


def evaluate_published(
    run_path: Path,
    *,
    half: bool = False,
    device: str | None = None,
    trust_custom_code: bool = False,
) -> Results:
    """Evaluate the weights that `save_pretrained` stores on the validation split.

    Args:
        run_path: a run folder, or a `.safetensors` file that this project wrote.
        half: whether the weights will be stored in half precision.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
        trust_custom_code: whether the run may name custom classes, which are imported.

    Returns:
        The results next to the weights, with the new metrics; only the new metrics if there are no
        results.

    Raises:
        CheckpointError: if the weights are missing or corrupt, or too large for half precision.
        DataError: if the data is missing or not as expected.
    """
    trained = load_trained_model(run_path, device=device, trust_custom_code=trust_custom_code)
    if half:
        trained.model.load_state_dict(round_to_half(trained.model.state_dict()))
        trained = replace(trained, weights_hash=compute_weights_hash(trained.model))
    measured = evaluate_model(trained, "val")
    if not (trained.file.parent / RESULTS_FILE).exists():
        return measured
    recorded = load_results(trained.file.parent)
    kept = {
        name: getattr(measured, name)
        for name in ("tasks", "images", "split_fingerprint", "weights_hash", "versions")
    }
    merged = recorded.model_copy(update={**kept, "rounded_from": ""})
    return compare_with(merged, recorded.baselines)
