"""Publication and loading of models: equal weights, no local paths, no code execution."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalEntryNotFoundError

import densemtl
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import SavedWeights, load_weights, save_tensors
from densemtl.errors import CheckpointError, ConfigError, ResultsError
from densemtl.results.results import RESULTS_FILE, load_results
from tools.hub import main

PHOTO = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)


@pytest.fixture
def saved(trained: Path, tmp_path: Path) -> Path:
    return densemtl.save_pretrained(trained, tmp_path / "gift", license="cc-by-4.0")


def test_save_and_load_preserve_weights_and_predictions(trained: Path, saved: Path) -> None:
    original, loaded = (
        load_trained_model(trained, device="cpu"),
        densemtl.from_pretrained(saved, device="cpu"),
    )
    assert loaded.weights_hash == original.weights_hash == load_results(saved).weights_hash
    first, second = original.model.state_dict(), loaded.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    expected = densemtl.Predictor.from_run(trained, device="cpu")(PHOTO)
    actual = densemtl.Predictor.from_pretrained(str(saved), device="cpu")(PHOTO)
    for task, values in expected.items():
        np.testing.assert_array_equal(values, actual[task])


def test_published_folder_loads_like_a_run_folder(saved: Path) -> None:
    assert load_trained_model(saved, device="cpu").file.name == "model.safetensors"
    assert load_results(saved).delta_m is not None


def test_published_files_contain_no_local_paths(saved: Path, trained: Path, tmp_path: Path) -> None:
    weights = load_weights(trained / "best.safetensors")
    config = yaml.safe_load(weights.config_yaml)
    secret = "/home/alice/secret"
    config["data"] = {
        "name": "folder",
        "root": f"{secret}/mine",
        "images": "images",
        "labels": {"semseg": {"files": f"{secret}/masks", "class_names": ["a", "b"]}},
    }
    config["init_from"] = {"semseg": f"{secret}/run"}
    save_tensors(tmp_path / "w.safetensors", SavedWeights(weights.tensors, yaml.safe_dump(config)))
    densemtl.save_pretrained(tmp_path / "w.safetensors", tmp_path / "other")
    for file in [*saved.iterdir(), *(tmp_path / "other").iterdir()]:
        for word in (b"alice", b"secret", str(tmp_path).encode()):
            assert word not in file.read_bytes(), file


def test_card_contains_the_results(saved: Path, trained: Path) -> None:
    card, results = ModelCard.load(saved / "README.md"), load_results(trained)
    data = card.data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["library_name"] == "densemtl"
    metrics = {
        metric["name"]: metric["value"]
        for each in data["model-index"][0]["results"]
        for metric in each["metrics"]
    }
    assert metrics["semseg mIoU"] == results.tasks["semseg"].value
    assert metrics["normals mErr"] == results.tasks["normals"].value
    text = card.text
    for result in results.tasks.values():
        assert f"{result.value:.4g}" in text
        assert f"{result.delta:+.2f}" in text
    assert f"**{results.delta_m:+.2f}**" in text
    assert "Protocol `survey`" in text
    assert "on the 4 images of `synthetic` val" in text
    assert results.weights_hash in text
    assert 'Predictor.from_pretrained("gift")' in text
    assert "Weights: cc-by-4.0." in text
    assert "`hard_sharing`" in text
    assert "`test_resnet`" in text


def test_images_are_included_only_for_synthetic_data_or_on_request(
    trained: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "a" / "predictions.png"
    densemtl.save_pretrained(trained, picture.parent)
    assert picture.exists()
    assert "](predictions.png)" in (picture.parent / "README.md").read_text()
    densemtl.save_pretrained(trained, tmp_path / "b", panels=False)
    assert not (tmp_path / "b" / "predictions.png").exists()
    real = tmp_path / "real"
    shutil.copytree(trained, real)
    weights = load_weights(real / "best.safetensors")
    config = {**yaml.safe_load(weights.config_yaml), "data": {"name": "nyud", "root": "nyud"}}
    save_tensors(real / "best.safetensors", SavedWeights(weights.tensors, yaml.safe_dump(config)))
    for panels, shown in ((None, False), (True, True)):
        folder = densemtl.save_pretrained(real, tmp_path / str(panels), panels=panels)
        assert (folder / "predictions.png").exists() is shown


def test_other_files_in_the_folder_are_kept(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    densemtl.save_pretrained(trained, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_results_of_other_weights_raise_results_error(trained: Path, tmp_path: Path) -> None:
    results = load_results(trained).model_copy(update={"weights_hash": "0" * 16})
    shutil.copy(trained / "best.safetensors", tmp_path)
    results.save(tmp_path / RESULTS_FILE)
    with pytest.raises(ResultsError, match=r"results of other weights than best\.safetensors"):
        densemtl.save_pretrained(tmp_path, tmp_path / "gift")
    assert not (tmp_path / "gift").exists()


def test_card_without_results_states_not_evaluated(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "best.safetensors", tmp_path)
    folder = densemtl.save_pretrained(tmp_path, tmp_path / "gift")
    assert "Not evaluated." in (folder / "README.md").read_text()


def test_missing_and_corrupt_files_raise_checkpoint_error(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder, and not the name of a hub"):
        densemtl.from_pretrained("nowhere")
    with pytest.raises(CheckpointError, match="no finished validation there yet"):
        densemtl.from_pretrained(tmp_path / "gift" / "..")
    whole = (saved / "model.safetensors").read_bytes()
    for broken in (whole[:-10], whole[:5], b"", b"\xff" * 100):
        (saved / "model.safetensors").write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable") as error:
            densemtl.from_pretrained(saved)
        assert "\n" not in str(error.value)


def test_custom_code_requires_trust_custom_code(saved: Path) -> None:
    weights = load_weights(saved / "model.safetensors")
    config = yaml.safe_load(weights.config_yaml)
    config["head"]["name"] = "densemtl.heads.fpn:FPNHead"
    save_tensors(saved / "model.safetensors", SavedWeights(weights.tensors, yaml.safe_dump(config)))
    message = r"names densemtl\.heads\.fpn:FPNHead, code that would be"
    with pytest.raises(ConfigError, match=message):
        densemtl.from_pretrained(saved)
    assert densemtl.from_pretrained(saved, trust_custom_code=True, device="cpu").tasks


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "os:path"},
        {"trackers": ["os:path"]},
        {"tasks": [{"name": "semseg", "metrics": ["os:path"]}]},
        {"tasks": [{"name": "semseg", "metrics": [{"name": "os:path"}]}]},
    ],
)
def test_custom_code_is_detected_in_all_sections(saved: Path, change: dict[str, Any]) -> None:
    weights = load_weights(saved / "model.safetensors")
    config = yaml.safe_dump({**yaml.safe_load(weights.config_yaml), **change})
    save_tensors(saved / "model.safetensors", SavedWeights(weights.tensors, config))
    with pytest.raises(ConfigError, match=r"names os:path, code that would be imported"):
        densemtl.from_pretrained(saved)


def test_repository_is_downloaded_from_the_hub(
    saved: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Any] = []

    def snapshot(repository: str, **options: Any) -> str:
        requests.append(
            (repository, options["revision"], "model.safetensors" in options["allow_patterns"])
        )
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    loaded = densemtl.from_pretrained("me/tiny", revision="v1", device="cpu")
    assert loaded.weights_hash == load_results(trained).weights_hash
    assert requests == [("me/tiny", "v1", True)]


def test_failed_download_raises_one_line_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"me/tiny: no such folder, and the download"
    ) as error:
        densemtl.from_pretrained("me/tiny")
    assert isinstance(error.value.__cause__, LocalEntryNotFoundError)
    assert "\n" not in str(error.value)


class Hub:
    """Fake HfApi that records its calls."""

    def __init__(self, **options: Any) -> None:
        Hub.calls: list[Any] = [options]

    def create_repo(self, repository: str, **options: Any) -> str:
        self.calls.append((repository, options))
        return f"https://hub/{repository}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        assert options["ignore_patterns"] == [".*"]
        self.calls.append((repo_id, sorted(file.name for file in Path(folder_path).iterdir())))
        self.calls.append((Path(folder_path) / "README.md").read_text())


def test_push_uploads_the_folder(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    main([str(trained), "--push", "me/tiny"])
    options, made, uploaded, card = Hub.calls
    assert options == {"token": None}
    assert made == ("me/tiny", {"private": True, "exist_ok": True})
    names = ["README.md", "config.yaml", "model.safetensors", "predictions.png", "results.json"]
    assert uploaded == ("me/tiny", names)
    assert 'Predictor.from_pretrained("me/tiny")' in card
    assert "published network: https://hub/me/tiny" in capsys.readouterr().out


def test_failed_upload_raises_one_line_error(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailingHub(Hub):
        def create_repo(self, repository: str, **options: Any) -> str:
            raise ConnectionError("401\nUnauthorized")

    monkeypatch.setattr(huggingface_hub, "HfApi", FailingHub)
    with pytest.raises(
        CheckpointError, match=r"me/tiny: publication failed \(ConnectionError"
    ) as found:
        densemtl.push_to_hub(trained, "me/tiny")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("option", ["--license", "--licence"])
def test_tool_writes_a_folder(trained: Path, tmp_path: Path, option: str) -> None:
    main([str(trained), "--save", str(tmp_path / "gift"), option, "mit"])
    assert "license: mit" in (tmp_path / "gift" / "README.md").read_text()


def test_package_does_not_unpickle_code() -> None:
    for file in Path(densemtl.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "cloudpickle", "joblib"} & set(names), file
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert keywords.get("weights_only") == "True", f"{file}:{node.lineno}"
