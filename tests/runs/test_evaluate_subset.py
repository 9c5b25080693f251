"""Evaluation of some of the tasks, and of data that lacks labels of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import densemtl
from densemtl.commands import evaluate
from densemtl.config.experiment import ExperimentConfig
from densemtl.engine.loading import load_trained_model
from densemtl.engine.task_subset import find_class_differences
from densemtl.engine.weights_file import save_weights
from densemtl.errors import CheckpointError, ConfigError, DataError
from densemtl.factory import build_model, build_tasks
from densemtl.results.results import Results
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.fake_datasets import write_nyud_survey

ROOMS = "balancing={name: fixed, weights: {semseg: 1, depth: 2}}"


def save_model(folder: Path, *overrides: str) -> Path:
    """Save the untrained weights of a tiny experiment."""
    experiment = make_tiny_experiment(*overrides)
    file = folder / "best.safetensors"
    save_weights(file, build_model(experiment, build_tasks(experiment)), experiment.to_yaml())
    return file


def evaluate_on_cpu(file: Path, *overrides: str) -> Results:
    return densemtl.evaluate(file, overrides, device="cpu")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for semseg and depth of synthetic rooms, with loss weights of both."""
    return save_model(tmp_path_factory.mktemp("rooms"), ROOMS)


@pytest.fixture
def nyud(tmp_path: Path) -> tuple[Path, Path]:
    """Return weights for three tasks, and a NYUD-v2 with labels of all."""
    root = tmp_path / "data"
    write_nyud_survey(root, count=2)
    settings = ("tasks=[semseg, depth, edge]", f"data={{name: nyud, root: {root}}}")
    return save_model(tmp_path, *settings), root


def test_metrics_of_a_subset_equal_those_of_all_tasks(rooms: Path) -> None:
    complete = evaluate_on_cpu(rooms)
    for name in ("semseg", "depth"):
        part = evaluate_on_cpu(rooms, f"tasks=[{name}]")
        assert part.tasks == {name: complete.tasks[name]}
        assert part.run == complete.run
        assert part.warnings == []


def test_metrics_may_be_added_to_a_subset(rooms: Path) -> None:
    results = evaluate_on_cpu(rooms, "tasks=[{name: semseg, metrics: [calibration_error]}]")
    assert "ECE" in results.tasks["semseg"].metrics


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks=[normals]", "the model does not predict 'normals', choose from depth, semseg"),
        ("tasks=[depht]", "did you mean 'depth'"),
        ("tasks=[]", "list at least one task"),
        ("tasks=[depth, {loss: l1}]", r"tasks\.1\.name"),
        ("data.val_image=3", "did you mean 'val_images'"),
    ],
)
def test_wrong_tasks_are_one_line(rooms: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        evaluate_on_cpu(rooms, override)
    assert "\n" not in str(error.value)


def test_other_commands_need_all_tasks(rooms: Path) -> None:
    with pytest.raises((CheckpointError, ConfigError)):
        load_trained_model(rooms, ["tasks=[depth]"], "cpu")


def test_tasks_without_label_files_are_named(
    nyud: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, root = nyud
    complete = evaluate_on_cpu(file)
    assert list(complete.tasks) == ["semseg", "depth", "edge"]
    shutil.rmtree(root / "depth")
    shutil.rmtree(root / "edge")
    capsys.readouterr()
    output = tmp_path / "results.json"
    evaluate.main([str(file), "--device", "cpu", "--output", str(output)])
    printed = capsys.readouterr().out
    results = Results.model_validate(json.loads(output.read_text()))
    assert results.tasks == {"semseg": complete.tasks["semseg"]}
    for name, line in zip(("depth", "edge"), results.warnings, strict=True):
        start = f"{name} is not evaluated: {root / name}: no {name} label for any of the 1 images"
        assert line.startswith(start)
        assert line in printed.replace("\n", "")
    shutil.rmtree(root / "segmentation")
    with pytest.raises(DataError, match="no edge label"):
        evaluate_on_cpu(file)


def test_tasks_without_label_files_in_a_set_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_nyud_survey(root, count=2)
    sets = {
        "nyud": {"name": "nyud", "root": str(root), "tasks": {"depth": "far", "edge": "edge"}},
        "rooms": {"name": "synthetic", "size": [32, 40], "val_images": 1, "tasks": ["semseg"]},
    }
    data = json.dumps({"name": "mixed", "sets": sets})
    file = save_model(tmp_path, "tasks=[semseg, far, edge]", f"data={data}")
    shutil.rmtree(root / "depth")
    results = evaluate_on_cpu(file)
    assert list(results.tasks) == ["semseg", "edge"]
    (line,) = results.warnings
    assert line.startswith(f"far is not evaluated: nyud: {root / 'depth'}: no depth label for any")


@pytest.mark.parametrize(
    ("names", "differing"),
    [
        (["a", "b", "c"], ""),
        (["a", "c", "b"], "2 classes"),
        (["a", "b", "x"], "'x' instead of 'c'"),
    ],
)
def test_other_names_of_classes_are_a_warning(names: list[str], differing: str) -> None:
    def make(classes: list[str], root: str) -> ExperimentConfig:
        labels = {"semseg": {"files": "x", "class_names": classes}, "depth": {"files": "y"}}
        data = {"name": "folder", "root": root, "images": "z", "labels": labels}
        return make_tiny_experiment(f"data={json.dumps(data)}")

    lines = find_class_differences(make(["a", "b", "c"], "/old"), make(names, "/new"))
    assert [line.startswith("semseg: ") and differing in line for line in lines] == (
        [True] if differing else []
    )
    assert find_class_differences(make_tiny_experiment(), make_tiny_experiment()) == []


def test_tasks_that_the_data_does_not_offer_are_named(rooms: Path, nyud: tuple[Path, Path]) -> None:
    file, root = nyud
    labels = f"{{depth: {{files: {root}/depth, scale: 1}}}}"
    data = (
        f"data={{name: folder, root: {root}, images: images, labels: {labels}, val_fraction: .5}}"
    )
    results = evaluate_on_cpu(file, data)
    assert list(results.tasks) == ["depth"]
    assert [line.partition(" ")[0] for line in results.warnings] == ["semseg", "edge"]
    with pytest.raises(ConfigError, match="semseg has 40 classes or channels in this data, but"):
        evaluate_on_cpu(rooms, f"data={{name: nyud, root: {root}}}", "tasks=[semseg]")
