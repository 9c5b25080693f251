"""Shipped models: they are found by name, load without data or network, and are small."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import densemtl
from densemtl.commands import demo
from densemtl.commands._checkpoint import get_output_folder
from densemtl.config import shipped_models
from densemtl.config.input_paths import find_weights_file
from densemtl.config.shipped_models import MODELS_DIR, find_model, get_model_name, list_models
from densemtl.engine.loading import load_trained_model
from densemtl.engine.weights_file import load_weights
from densemtl.errors import CheckpointError
from densemtl.runs.transfer import transfer_weights
from tests.helpers.stand_in import CLOTHING, write_stand_in

MAX_BYTES = 10_000_000
PHOTO = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)
SHIPPED = list_models()


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of shipped models with one stand-in."""
    folder = tmp_path_factory.mktemp("shipped")
    write_stand_in(folder / "tiny", tmp_path_factory.mktemp("work"))
    return folder


@pytest.fixture
def models_dir(stand_in: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make the stand-in the only shipped model, in an empty working directory."""
    monkeypatch.setattr(shipped_models, "MODELS_DIR", stand_in)
    monkeypatch.chdir(tmp_path)
    return stand_in


@pytest.fixture
def use_models(request: pytest.FixtureRequest) -> None:
    """Use the folder of the package for its own models, and that of the stand-in for `tiny`."""
    if request.getfixturevalue("name") not in SHIPPED:
        request.getfixturevalue("models_dir")


@pytest.mark.usefixtures("use_models")
@pytest.mark.parametrize("name", ["densemtl/tiny", *SHIPPED])
def test_model_is_small_has_a_card_and_predicts(name: str) -> None:
    folder = find_model(Path(name))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
    card = (folder / "README.md").read_text(encoding="utf-8")
    for section in ("## Use", "## Results", "## Training", "## License"):
        assert section in card
    if name in SHIPPED:
        assert f'Predictor.from_pretrained("{name}")' in card
        assert "Not evaluated" not in card
    predictor = densemtl.Predictor.from_pretrained(name, device="cpu")
    maps = predictor(PHOTO)
    assert list(maps) == [task.name for task in predictor.tasks]
    assert all(np.isfinite(values).all() for values in maps.values())
    assert all(values.shape[:2] == PHOTO.shape[:2] for values in maps.values())


def test_custom_classes_are_known_without_data(models_dir: Path) -> None:
    loaded = load_trained_model(Path("densemtl/tiny"), device="cpu")
    assert loaded.file == models_dir / "tiny" / "model.safetensors"
    clothing = next(task for task in loaded.tasks if task.name == "clothing")
    assert list(clothing.class_names) == CLOTHING


def test_published_mixture_contains_no_local_paths(models_dir: Path) -> None:
    for file in (models_dir / "tiny").iterdir():
        assert b"alice" not in file.read_bytes(), file
    config = (models_dir / "tiny" / "config.yaml").read_text()
    assert "root: ecssd" in config
    assert "~/.cache/densemtl" in config


def test_card_of_a_mixture_lists_its_sets(models_dir: Path) -> None:
    card = (models_dir / "tiny" / "README.md").read_text()
    assert "trained with densemtl on `nyud`, `bsds`, `ecssd`, `ccp`." in card
    assert "| nyud | semseg, depth, normals |" in card
    assert "| ccp | clothing |" in card
    assert "mixed" not in card


def test_unknown_names_raise_one_line_without_network(models_dir: Path) -> None:
    message = "densemtl/tini: no such file or folder, and no such shipped model; did you mean"
    for load in (densemtl.from_pretrained, densemtl.evaluate, densemtl.Predictor.from_run):
        with pytest.raises(CheckpointError, match=message) as found:
            load("densemtl/tini")
        assert "\n" not in str(found.value)


def test_installations_without_models_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shipped_models, "MODELS_DIR", tmp_path / "none")
    with pytest.raises(CheckpointError, match="this installation contains none"):
        find_model(Path("densemtl/lite0-six"))


def test_existing_paths_take_precedence(models_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(models_dir / "tiny", tmp_path / "densemtl" / "tiny")
    own = Path("densemtl/tiny/model.safetensors")
    assert find_weights_file(Path("densemtl/tiny")) == own
    assert densemtl.from_pretrained("densemtl/tiny", device="cpu").file == own


@pytest.mark.parametrize("path", ["/densemtl/tiny", "densemtl", "other/tiny", "densemtl/tiny/x"])
def test_other_paths_are_no_names(models_dir: Path, path: str) -> None:
    assert find_model(Path(path)) == Path(path)


def test_training_can_start_from_a_shipped_model(models_dir: Path) -> None:
    loaded = load_trained_model(Path("densemtl/tiny"), device="cpu")
    for parameter in loaded.model.parameters():
        torch.nn.init.zeros_(parameter)
    report = transfer_weights(loaded.model, Path("densemtl/tiny"), strict=True)
    tensors = load_weights(report.file).tensors
    assert all(
        torch.equal(value, tensors[name]) for name, value in loaded.model.state_dict().items()
    )


def test_commands_write_nothing_into_the_package(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_trained_model(Path("densemtl/tiny"), device="cpu")
    monkeypatch.setattr("densemtl.commands._checkpoint.MODELS_DIR", models_dir)
    assert get_output_folder(loaded, "export") == Path("runs/tiny/export")


@pytest.mark.parametrize(
    ("arguments", "run", "inputs"),
    [
        (["photo.jpg"], None, ["photo.jpg"]),
        (["head.width=8", "photo.JPG", "film.mp4"], None, ["photo.JPG", "film.mp4"]),
        (["photos/**/*.png"], None, ["photos/**/*.png"]),
        (["photos"], None, ["photos"]),
        (["--web"], None, []),
        (["run", "photo.jpg"], "run", ["photo.jpg"]),
        (["published", "photos"], "published", ["photos"]),
        (["runs/typo", "photo.jpg"], "runs/typo", ["photo.jpg"]),
        (["w.safetensors", "--webcam", "0"], "w.safetensors", []),
        (["densemtl/tiny", "photo.jpg"], "densemtl/tiny", ["photo.jpg"]),
    ],
)
def test_demo_recognizes_whether_a_run_is_given(
    arguments: list[str],
    run: str | None,
    inputs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("photos/a.png", "run/best.safetensors", "published/predictions.png"):
        Path(file).parent.mkdir()
        Path(file).touch()
    Path("published/model.safetensors").touch()
    args = demo.parse_args(arguments)
    assert args.checkpoint == (run and Path(run))
    assert args.inputs == [Path(text) for text in inputs]


def test_demo_without_a_run_shows_the_shipped_model(
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "DEFAULT_MODEL", Path("densemtl/tiny"))
    cv2.imwrite("photo.png", PHOTO)
    demo.main(["photo.png", "--output", "out", "--device", "cpu"])
    assert "model: densemtl/tiny, as no run is given" in capsys.readouterr().out
    assert cv2.imread("out/photo.png").shape[1] > 6 * PHOTO.shape[1]


def test_demo_without_run_and_shipped_model_raises_one_line(models_dir: Path) -> None:
    message = "no run is given, and this installation contains no trained model; give a run"
    with pytest.raises(CheckpointError, match=message):
        demo.main(["photo.png"])


def test_cards_name_shipped_models_with_their_owner(tmp_path: Path) -> None:
    assert get_model_name(MODELS_DIR / "new") == "densemtl/new"
    assert get_model_name(tmp_path / "new") == "new"
