"""Publication in half precision: rounding, hashes, metrics of the rounded weights, and the card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import densemtl
from densemtl.config.experiment import ExperimentConfig
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import SavedWeights, load_weights, save_tensors
from densemtl.errors import CheckpointError, ConfigError
from densemtl.hub.half_precision import round_to_half
from densemtl.hub.model_card import write_model_card
from densemtl.results.results import load_results
from tests.helpers.experiments import TINY_CONFIG
from tools.hub import main

PHOTO = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)


def test_values_are_rounded_to_half_precision() -> None:
    rounded = round_to_half({"a": torch.tensor([0.1, 65504.0, -3e-7])})["a"]
    assert rounded.dtype == torch.float16
    expected = np.array([0.1, 65504.0, -3e-7], np.float16)
    np.testing.assert_array_equal(rounded.numpy(), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("norm.running_var", 1e6), ("norm.running_var", 0.1), ("running_mean", 0.1), ("bias", 1e-6)],
)
def test_statistics_and_tiny_tensors_keep_single_precision(name: str, value: float) -> None:
    tensor = torch.tensor([value])
    assert torch.equal(round_to_half({name: tensor})[name], tensor)


def test_integers_and_empty_tensors_are_kept() -> None:
    tensors = {"norm.num_batches_tracked": torch.tensor(70000), "empty": torch.zeros(0)}
    rounded = round_to_half(tensors)
    assert rounded["norm.num_batches_tracked"].dtype == torch.int64
    assert int(rounded["norm.num_batches_tracked"]) == 70000
    assert rounded["empty"].shape == (0,)


@pytest.mark.parametrize("value", [65520.0, -1e6, float("inf"), float("nan")])
def test_values_outside_the_range_raise_an_error_with_the_tensor(value: float) -> None:
    with pytest.raises(CheckpointError, match=r"^head\.bias: a value of .* outside the range"):
        round_to_half({"weight": torch.ones(2), "head.bias": torch.tensor([1.0, value])})


def test_too_large_values_leave_no_files(trained: Path, tmp_path: Path) -> None:
    weights = load_weights(trained / "best.safetensors")
    name = next(name for name in weights.tensors if name.endswith("weight"))
    tensors = {**weights.tensors, name: weights.tensors[name] * 1e9}
    save_tensors(tmp_path / "w.safetensors", SavedWeights(tensors, weights.config_yaml))
    with pytest.raises(CheckpointError, match=name):
        densemtl.save_pretrained(tmp_path / "w.safetensors", tmp_path / "gift", half=True)
    assert not (tmp_path / "gift").exists()


def test_saved_weights_are_half_as_large_and_predict_almost_the_same(
    trained: Path, tmp_path: Path
) -> None:
    sizes = {}
    for half in (False, True):
        folder = densemtl.save_pretrained(trained, tmp_path / str(half), half=half)
        tensors = load_file(folder / "model.safetensors").values()
        sizes[half] = sum(tensor.nbytes for tensor in tensors)
    assert sizes[True] < 0.55 * sizes[False]
    loaded = load_trained_model(tmp_path / "True", device="cpu")
    assert all(value.dtype == torch.float32 for value in loaded.model.parameters())
    expected = densemtl.Predictor.from_run(trained, device="cpu")(PHOTO)["normals"]
    actual = densemtl.Predictor.from_pretrained(tmp_path / "True", device="cpu")(PHOTO)["normals"]
    assert 0 < np.abs(actual - expected).max() < 0.01 * np.abs(expected).max()


def test_results_state_that_they_were_measured_before_rounding(
    trained: Path, tmp_path: Path
) -> None:
    folder = densemtl.save_pretrained(trained, tmp_path / "gift", half=True)
    results, original = load_results(folder), load_results(trained)
    assert results.weights_hash == load_trained_model(folder, device="cpu").weights_hash
    assert results.rounded_from == original.weights_hash != results.weights_hash
    card = (folder / "README.md").read_text()
    assert f"those of the weights `{original.weights_hash}` before rounding" in card
    again = densemtl.save_pretrained(folder, tmp_path / "again", half=True)  # hashes agree
    assert load_results(again) == results
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_evaluate_measures_the_rounded_weights(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("## Limitations\n\nRooms only.\n")
    folder = tmp_path / "gift"
    options = ["--save", str(folder), "--half", "--evaluate", "--device", "cpu"]
    main([str(trained), *options, "--notes", str(tmp_path / "notes.md")])
    results, original = load_results(folder), load_results(trained)
    measured = densemtl.evaluate(folder, device="cpu")
    assert results.rounded_from == ""
    assert results.weights_hash == measured.weights_hash != original.weights_hash
    assert results.step == original.step
    assert results.baselines.keys() == original.baselines.keys()
    for task, result in results.tasks.items():
        assert result.metrics == measured.tasks[task].metrics
        gain = (result.value / original.baselines[task].value - 1) * 100
        assert result.delta == pytest.approx(gain if result.higher_is_better else -gain)
    card = (folder / "README.md").read_text()
    assert "The metrics are those of the rounded weights." in card
    assert card.endswith("## Limitations\n\nRooms only.\n")


def test_missing_notes_raise_an_error_before_anything_is_written(
    trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--notes: .*none\.md: cannot be read"):
        main([str(trained), "--save", str(tmp_path / "a"), "--notes", str(tmp_path / "none.md")])
    assert not (tmp_path / "a").exists()


def test_card_of_an_evaluated_mixture_states_the_images_of_each_set(
    trained: Path, tmp_path: Path
) -> None:
    sets = {"rooms": {"name": "synthetic", "tasks": ["semseg"]}, "far": {"name": "synthetic"}}
    merged = {
        **TINY_CONFIG,
        "tasks": ["semseg", "normals"],
        "data": {"name": "mixed", "sets": sets},
    }
    counts = {"rooms": {"train": 7, "val": 3}, "far": {"train": 5, "val": 1}}
    results = load_results(trained).model_copy(update={"set_images": counts})
    experiment = ExperimentConfig.model_validate(merged)
    write_model_card(tmp_path, "me/mix", experiment, results, "other")
    card = ModelCard.load(tmp_path / "README.md")
    assert "| rooms | semseg | 7 | 3 |" in card.text
    assert "| far | semseg, normals | 5 | 1 |" in card.text
    assert "| normals | far | mErr ↓ | 4 |" in card.text
    assert "images of `rooms`, `far` val" in card.text
    found = card.data.to_dict()["model-index"][0]["results"]
    assert [each["dataset"]["name"] for each in found] == ["rooms, far", "far"]
