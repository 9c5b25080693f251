"""The command `evaluate.py predictions` on files of this project and of other projects."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from densemtl.config.experiment import validate_experiment
from densemtl.config.yaml_loader import apply_overrides
from densemtl.errors import ConfigError, DataError
from densemtl.evaluation import prediction_files
from densemtl.factory import build_dataset, build_tasks
from densemtl.metrics.boundary.counts import count_boundary_matches
from densemtl.metrics.boundary.precision_recall import compute_curve
from densemtl.ops.region_boundaries import find_region_boundaries
from densemtl.results.results import Results, load_results
from densemtl.results.tables import group_by_seed, to_csv
from densemtl.runs.train_run import train_experiment
from tests.helpers import fake_datasets
from tests.helpers.experiments import TINY_CONFIG, make_tiny_experiment
from tests.helpers.protocols import PROTOCOLS

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"
TASKS = ["semseg", "human_parts", "depth", "normals", "edge", "saliency"]
Evaluate = Callable[..., Results]


@pytest.fixture(scope="module")
def tool() -> Callable[[list[str]], None]:
    return runpy.run_path(str(TOOL))["main"]


@pytest.fixture
def evaluate(tool, tmp_path) -> Evaluate:
    """`evaluate(*arguments)`: the results that the tool writes."""

    def call(*arguments: str | Path) -> Results:
        file = tmp_path / "out.json"
        tool([*map(str, arguments), "--output", str(file)])
        return load_results(file)

    return call


@pytest.fixture
def config(tmp_path) -> Path:
    """Write a configuration of synthetic rooms of an odd size with all six tasks."""
    changes = {"tasks": TASKS, "data": {**TINY_CONFIG["data"], "size": [41, 53]}}
    file = tmp_path / "rooms.yaml"
    file.write_text(yaml.safe_dump({**TINY_CONFIG, **changes}))
    return file


@pytest.fixture
def labels(config, tmp_path) -> Path:
    """Write the labels as predictions to a folder, with other values at ignored pixels."""
    folder = tmp_path / "oracle"
    experiment = validate_experiment(
        apply_overrides(yaml.safe_load(config.read_text()), [], "test")
    )
    dataset = build_dataset(experiment, "val")
    for index in range(len(dataset)):
        sample = dataset[index]
        for task in build_tasks(experiment):
            if task.name in sample.targets:
                filled = np.nan_to_num(sample.targets[task.name], nan=0.5)
                filled[filled == 255] = 1
                prediction_files.write_prediction(folder, task, sample.id, filled)
    return folder


@pytest.mark.parametrize("protocol", ["survey", "modern"])
def test_labels_have_perfect_scores(evaluate, labels, config, protocol):
    results = evaluate("predictions", labels, config, f"protocol={protocol}")
    values = {task: result.value for task, result in results.tasks.items()}
    assert values["semseg"] == values["human_parts"] == values["saliency"] == 100
    assert values["depth"] == 0
    assert values["normals"] < 0.02
    assert (results.protocol, results.images, results.split) == (protocol, 4, "val")


def test_results_contain_the_source_of_the_predictions(evaluate, labels, config):
    results = evaluate("predictions", labels, config, "seed=3", "--split", "val")
    assert results.run == {
        "dataset": "synthetic",
        "backbone": "oracle",
        "decoder": "files",
        "head": "files",
        "balancing": "fixed",
        "predictions": str(labels),
    }
    named = evaluate("predictions", labels, config, "--name", "theirs")
    assert "files, theirs" in to_csv(group_by_seed([named]))
    assert named.weights_hash == results.weights_hash
    np.save(labels / "depth" / "val00002.npy", np.ones((41, 53), np.float32))
    assert evaluate("predictions", labels, config).weights_hash != results.weights_hash


def test_number_of_workers_does_not_change_results(evaluate, labels, config):
    np.save(labels / "depth" / "val00002.npy", np.ones((41, 53), np.float32))
    single_process = evaluate("predictions", labels, config, "loader.num_workers=0")
    two_workers = evaluate("predictions", labels, config, "loader.num_workers=2")
    assert single_process.tasks == two_workers.tasks
    assert single_process.weights_hash == two_workers.weights_hash


def test_saved_predictions_have_the_scores_of_the_network(evaluate, tmp_path):
    """The image size differs from the input size, so that predictions are saved after resizing."""
    folder, saved = tmp_path / "runs" / "tiny", tmp_path / "saved"
    train_experiment(
        make_tiny_experiment("train.epochs=1", f"tasks=[{', '.join(TASKS)}]", "data.size=[41, 53]"),
        folder,
        "cpu",
    )
    of_network = evaluate(folder, "--device", "cpu", "--save-predictions", saved)
    assert sorted(path.name for path in saved.iterdir()) == sorted(TASKS)
    assert [len(list((saved / task).iterdir())) for task in TASKS] == [4] * 6
    of_files = evaluate("predictions", saved, folder)
    for task, result in of_network.tasks.items():
        metrics = of_files.tasks[task].metrics
        assert metrics == pytest.approx(result.metrics, abs=1e-6, nan_ok=True), task
    assert of_files.split_fingerprint == of_network.split_fingerprint


@pytest.mark.parametrize("protocol", ["survey", "modern"])
def test_saved_edges_have_the_scores_of_the_run(evaluate, tmp_path, protocol):
    folder, saved = tmp_path / "runs" / "tiny", tmp_path / "saved"
    edge = "tasks=[{name: edge, max_distance: 0.03}]"
    train_experiment(
        make_tiny_experiment("train.epochs=1", edge, f"protocol={protocol}", "data.size=[41, 53]"),
        folder,
        "cpu",
    )
    evaluate(folder, "--device", "cpu", "--save-predictions", saved)
    of_files = evaluate("predictions", saved, folder, "loader.num_workers=2").tasks["edge"]
    assert of_files.primary_metric == "odsF"
    assert 0 < of_files.value < 100
    assert of_files.metrics == load_results(folder).tasks["edge"].metrics


def test_nyud_edges_depend_on_the_protocol(evaluate, tmp_path):
    """The matching distance is .011, and `modern` reads the edge maps as regions."""
    root, predictions = tmp_path / "nyud", tmp_path / "theirs"
    ids = fake_datasets.write_nyud_survey(root, size=(120, 160))[2:]
    maps = [np.load(root / "edge" / f"{name}.npy").astype(np.uint8) for name in ids]
    for name, edge in zip(ids, maps, strict=True):
        blurred = cv2.GaussianBlur(np.roll(edge, 1, 1).astype(np.float32), (0, 0), 1)
        blurred[60, 20:90] = 1
        fake_datasets.write_array(predictions / "edge" / f"{name}.npy", blurred)
    changes = {"data": {"name": "nyud", "root": str(root)}, "tasks": ["edge"]}
    config = tmp_path / "nyud.yaml"
    config.write_text(yaml.safe_dump({**TINY_CONFIG, **changes}))
    for protocol, truths in (
        ("survey", maps),
        ("modern", [find_region_boundaries(edge) for edge in maps]),
    ):
        result = evaluate("predictions", predictions, config, f"protocol={protocol}").tasks["edge"]
        counts = [
            count_boundary_matches(
                np.load(predictions / "edge" / f"{name}.npy"),
                [truth > 0],
                PROTOCOLS[protocol],
                0.011,
            )
            for name, truth in zip(ids, truths, strict=True)
        ]
        assert result.value == pytest.approx(100 * compute_curve(sum(counts)).f.max(), rel=1e-12)
        assert 0 < result.value < 100
    stricter_task = "tasks=[{name: edge, max_distance: 0.003}]"
    stricter = evaluate("predictions", predictions, config, stricter_task)
    assert stricter.tasks["edge"].value < result.value


def test_files_of_the_survey_code(evaluate, tmp_path):
    """The code of the survey saves 8-bit PNG files and depth as .mat; class ids start at 1 here."""
    root, predictions = tmp_path / "nyud", tmp_path / "theirs"
    ids = fake_datasets.write_nyud_survey(root)[2:]
    for name in ids:
        scene = cv2.imread(str(root / "segmentation" / f"{name}.png"), -1)
        semseg = np.where(scene == 0, 7, scene)
        fake_datasets.write_image(predictions / "semseg" / f"{name}.png", semseg)
        depth = np.load(root / "depth" / f"{name}.npy")
        fake_datasets.write_mat(
            predictions / "depth" / f"{name}.mat", depth=depth, size=np.array([[48, 64]])
        )
        normals = np.load(root / "normals" / f"{name}.npy") * [-1, 1, 1]
        fake_datasets.write_image(
            predictions / "normals" / f"{name}.png", np.rint((normals + 1) * 127.5).astype(np.uint8)
        )
    changes = {"data": {"name": "nyud", "root": str(root)}, "tasks": ["semseg", "depth", "normals"]}
    config = tmp_path / "nyud.yaml"
    config.write_text(yaml.safe_dump({**TINY_CONFIG, **changes}))
    options = ["--first-class", "1", "--mat-key", "depth", "--normals-axes", "left", "down"]
    results = evaluate("predictions", predictions, config, *options, "forward")
    assert results.tasks["semseg"].value == 100
    assert results.tasks["depth"].value == 0
    assert 0.01 < results.tasks["normals"].value < 0.4


def test_tasks_without_folder_and_extra_files_are_reported(evaluate, labels, config, capsys):
    for task in ("edge", "normals"):
        shutil.rmtree(labels / task)
    (labels / "saliency").rename(labels / "sal")
    shutil.copy(labels / "depth" / "val00000.npy", labels / "depth" / "val99999.npy")
    results = evaluate("predictions", labels, config)
    assert list(results.tasks) == ["semseg", "human_parts", "depth", "saliency"]
    output = capsys.readouterr().out
    assert "not evaluated, because" in output
    assert "normals, edge" in output
    assert "depth: 1 of 5 files match no image of split 'val': val99999" in output


def test_missing_predictions_raise_an_error(evaluate, labels, config, tmp_path):
    for name in ("val00001", "val00003"):
        (labels / "semseg" / f"{name}.png").unlink()
    with pytest.raises(DataError, match="semseg: no prediction for 2 of 4 images: val00001, val0"):
        evaluate("predictions", labels, config)
    with pytest.raises(DataError, match=r"contains none of the folders semseg, "):
        evaluate("predictions", tmp_path / "nowhere", config)


def test_images_without_label_need_no_prediction(evaluate, labels, config):
    """Only images without people have no file of human parts."""
    names = {file.stem for file in (labels / "human_parts").iterdir()}
    assert 0 < len(names) < 4
    results = evaluate("predictions", labels, config)
    assert results.tasks["human_parts"].value == 100
    images = [results.tasks[task].metrics["images"] for task in ("human_parts", "depth")]
    assert images == [len(names), 4]


def test_other_sizes_raise_an_error_or_are_resized(evaluate, labels, config):
    file = labels / "depth" / "val00001.npy"
    np.save(file, np.load(file)[:-1])
    message = r"val00001\.npy: the prediction has 40x53 pixels, .* 41x53"
    with pytest.raises(DataError, match=message):
        evaluate("predictions", labels, config)
    resized = evaluate("predictions", labels, config, "--resize")
    assert 0 < resized.tasks["depth"].value < 1


def test_invalid_arguments_raise_an_error(evaluate, labels, config, tmp_path):
    for wrong in ("sideways", "left"):
        axes = ["--normals-axes", "right", wrong, "forward"]
        message = f"right {wrong} forward: pass one direction each of right or"
        with pytest.raises(ConfigError, match=message):
            evaluate("predictions", labels, config, *axes)
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        evaluate("predictions", labels, tmp_path / "nothing.yaml")


@pytest.mark.parametrize("command", ["predictions", "edges"])
def test_help_imports_no_large_packages(command):
    call = [sys.executable, "-X", "importtime", str(TOOL), command, "--help"]
    process = subprocess.run(call, capture_output=True, text=True, check=False)
    assert process.returncode == 0
    assert f"usage: evaluate.py {command}" in process.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in process.stderr.splitlines()}
    assert not imported & {"torch", "timm", "cv2", "torchmetrics", "scipy", "matplotlib"}
