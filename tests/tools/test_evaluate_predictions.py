"""evaluate.py on files: what a run saves, and what others would."""

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
    """Rooms of an odd size, all six tasks."""
    changed = {"tasks": TASKS, "data": {**TINY_CONFIG["data"], "size": [41, 53]}}
    file = tmp_path / "rooms.yaml"
    file.write_text(yaml.safe_dump({**TINY_CONFIG, **changed}))
    return file


@pytest.fixture
def labels(config, tmp_path) -> Path:
    """The labels of the rooms as predictions; where they are void, something else."""
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
def test_labels_score_perfectly(evaluate, labels, config, protocol):
    results = evaluate("predictions", labels, config, f"protocol={protocol}")
    values = {task: result.value for task, result in results.tasks.items()}
    assert values["semseg"] == values["human_parts"] == values["saliency"] == 100
    assert values["depth"] == 0
    assert values["normals"] < 0.02
    assert (results.protocol, results.images, results.split) == (protocol, 4, "val")


def test_results_say_where_they_come_from(evaluate, labels, config):
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


def test_workers_change_nothing(evaluate, labels, config):
    np.save(labels / "depth" / "val00002.npy", np.ones((41, 53), np.float32))
    one = evaluate("predictions", labels, config, "loader.num_workers=0")
    other = evaluate("predictions", labels, config, "loader.num_workers=2")
    assert one.tasks == other.tasks
    assert one.weights_hash == other.weights_hash


def test_saved_predictions_score_as_the_network_did(evaluate, tmp_path):
    """At another size than the network's input, so that they are what was scored, restored."""
    folder, saved = tmp_path / "runs" / "tiny", tmp_path / "saved"
    train_experiment(
        make_tiny_experiment("train.epochs=1", f"tasks=[{', '.join(TASKS)}]", "data.size=[41, 53]"),
        folder,
        "cpu",
    )
    own = evaluate(folder, "--device", "cpu", "--save-predictions", saved)
    assert sorted(path.name for path in saved.iterdir()) == sorted(TASKS)
    assert [len(list((saved / task).iterdir())) for task in TASKS] == [4] * 6
    again = evaluate("predictions", saved, folder)
    for task, result in own.tasks.items():
        found = again.tasks[task].metrics
        assert found == pytest.approx(result.metrics, abs=1e-6, nan_ok=True), task
    assert again.split_fingerprint == own.split_fingerprint


@pytest.mark.parametrize("protocol", ["survey", "modern"])
def test_edges_score_as_in_the_run(evaluate, tmp_path, protocol):
    folder, saved = tmp_path / "runs" / "tiny", tmp_path / "saved"
    edge = "tasks=[{name: edge, max_distance: 0.03}]"
    train_experiment(
        make_tiny_experiment("train.epochs=1", edge, f"protocol={protocol}", "data.size=[41, 53]"),
        folder,
        "cpu",
    )
    evaluate(folder, "--device", "cpu", "--save-predictions", saved)
    found = evaluate("predictions", saved, folder, "loader.num_workers=2").tasks["edge"]
    theirs = load_results(folder).tasks["edge"]
    assert found.primary_metric == "odsF"
    assert 0 < found.value < 100
    assert found.metrics == theirs.metrics


def test_nyud_edges_are_published_in_two_ways(evaluate, tmp_path):
    """At the distance of .011, and under `modern` of the maps read as regions."""
    root, theirs = tmp_path / "nyud", tmp_path / "theirs"
    ids = fake_datasets.write_nyud_survey(root, size=(120, 160))[2:]
    maps = [np.load(root / "edge" / f"{name}.npy").astype(np.uint8) for name in ids]
    for name, edge in zip(ids, maps, strict=True):
        blurred = cv2.GaussianBlur(np.roll(edge, 1, 1).astype(np.float32), (0, 0), 1)
        blurred[60, 20:90] = 1
        fake_datasets.write_array(theirs / "edge" / f"{name}.npy", blurred)
    changes = {"data": {"name": "nyud", "root": str(root)}, "tasks": ["edge"]}
    config = tmp_path / "nyud.yaml"
    config.write_text(yaml.safe_dump({**TINY_CONFIG, **changes}))
    for protocol, truths in (
        ("survey", maps),
        ("modern", [find_region_boundaries(each) for each in maps]),
    ):
        found = evaluate("predictions", theirs, config, f"protocol={protocol}").tasks["edge"]
        counts = [
            count_boundary_matches(
                np.load(theirs / "edge" / f"{name}.npy"), [truth > 0], PROTOCOLS[protocol], 0.011
            )
            for name, truth in zip(ids, truths, strict=True)
        ]
        assert found.value == pytest.approx(100 * compute_curve(sum(counts)).f.max(), rel=1e-12)
        assert 0 < found.value < 100
    stricter = evaluate("predictions", theirs, config, "tasks=[{name: edge, max_distance: 0.003}]")
    assert stricter.tasks["edge"].value < found.value


def test_files_of_another_project(evaluate, tmp_path):
    """As the survey's code saves them: PNG of 8 bits, depth in .mat; the ids count from 1 here."""
    root, theirs = tmp_path / "nyud", tmp_path / "theirs"
    ids = fake_datasets.write_nyud_survey(root)[2:]
    for name in ids:
        scene = cv2.imread(str(root / "segmentation" / f"{name}.png"), -1)
        fake_datasets.write_image(theirs / "semseg" / f"{name}.png", np.where(scene == 0, 7, scene))
        depth = np.load(root / "depth" / f"{name}.npy")
        fake_datasets.write_mat(
            theirs / "depth" / f"{name}.mat", depth=depth, size=np.array([[48, 64]])
        )
        normals = np.load(root / "normals" / f"{name}.npy") * [-1, 1, 1]
        fake_datasets.write_image(
            theirs / "normals" / f"{name}.png", np.rint((normals + 1) * 127.5).astype(np.uint8)
        )
    changes = {"data": {"name": "nyud", "root": str(root)}, "tasks": ["semseg", "depth", "normals"]}
    config = tmp_path / "nyud.yaml"
    config.write_text(yaml.safe_dump({**TINY_CONFIG, **changes}))
    options = ["--first-class", "1", "--mat-key", "depth", "--normals-axes", "left", "down"]
    results = evaluate("predictions", theirs, config, *options, "forward")
    assert results.tasks["semseg"].value == 100
    assert results.tasks["depth"].value == 0
    assert 0.01 < results.tasks["normals"].value < 0.4


def test_tasks_without_a_folder_are_left_out_and_files_too_many_told(
    evaluate, labels, config, capsys
):
    for task in ("edge", "normals"):
        shutil.rmtree(labels / task)
    (labels / "saliency").rename(labels / "sal")
    shutil.copy(labels / "depth" / "val00000.npy", labels / "depth" / "val99999.npy")
    results = evaluate("predictions", labels, config)
    assert list(results.tasks) == ["semseg", "human_parts", "depth", "saliency"]
    told = capsys.readouterr().out
    assert "not evaluated, because" in told
    assert "normals, edge" in told
    assert "depth: 1 of 5 files match no image of split 'val': val99999" in told


def test_missing_predictions_are_counted_and_named(evaluate, labels, config, tmp_path):
    for name in ("val00001", "val00003"):
        (labels / "semseg" / f"{name}.png").unlink()
    with pytest.raises(DataError, match="semseg: no prediction for 2 of 4 images: val00001, val0"):
        evaluate("predictions", labels, config)
    with pytest.raises(DataError, match=r"contains none of the folders semseg, "):
        evaluate("predictions", tmp_path / "nowhere", config)


def test_an_image_without_a_label_needs_no_prediction(evaluate, labels, config):
    """Those without people are the only ones that have no file; nothing of them is asked for."""
    names = {file.stem for file in (labels / "human_parts").iterdir()}
    assert 0 < len(names) < 4
    results = evaluate("predictions", labels, config)
    assert results.tasks["human_parts"].value == 100
    images = [results.tasks[task].metrics["images"] for task in ("human_parts", "depth")]
    assert images == [len(names), 4]


def test_another_size_is_told_or_resized(evaluate, labels, config):
    file = labels / "depth" / "val00001.npy"
    np.save(file, np.load(file)[:-1])
    with pytest.raises(DataError, match=r"val00001\.npy: the prediction is 40x53 pixels, .* 41x53"):
        evaluate("predictions", labels, config)
    resized = evaluate("predictions", labels, config, "--resize")
    assert 0 < resized.tasks["depth"].value < 1


def test_mistakes_on_the_command_line(evaluate, labels, config, tmp_path):
    for wrong in ("sideways", "left"):
        axes = ["--normals-axes", "right", wrong, "forward"]
        message = f"right {wrong} forward: pass one direction each of right or"
        with pytest.raises(ConfigError, match=message):
            evaluate("predictions", labels, config, *axes)
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        evaluate("predictions", labels, tmp_path / "nothing.yaml")


@pytest.mark.parametrize("command", ["predictions", "edges"])
def test_help_of_the_commands_is_light(command):
    call = [sys.executable, "-X", "importtime", str(TOOL), command, "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert f"usage: evaluate.py {command}" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "timm", "cv2", "torchmetrics", "scipy", "matplotlib"}
