"""Class weights: formulas, options, and weights that a run computes from its training labels."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import yaml

from densemtl.config.experiment import ExperimentConfig
from densemtl.config.input_paths import CONFIG
from densemtl.data.base import DenseDataset
from densemtl.engine.loading import load_trained_model
from densemtl.errors import ConfigError, DataError
from densemtl.factory import build_dataset, build_tasks
from densemtl.losses.class_weights import (
    EFFECTIVE_BETA,
    WEIGHT_METHODS,
    ClassCounts,
    compute_class_weights,
)
from densemtl.runs import class_weights, train_run
from densemtl.runs.run_dir import reserve_run_dir
from densemtl.runs.train_run import train_experiment
from densemtl.tasks.classification import Classification
from densemtl.types import Sample
from tests.helpers.experiments import make_tiny_experiment

LABELS = [
    np.array([[0, 0, 0, 1], [0, 0, 255, 255]], np.uint8),
    np.array([[0, 0, 0, 0], [0, 0, 0, 2]], np.uint8),
    np.array([[2, 2, 2, 2], [255, 255, 255, 255]], np.uint8),
]
NAMES = ["wall", "floor", "bed", "lamp"]
MEDIAN = "tasks=[{name: semseg, loss: {name: cross_entropy, class_weights: median}}, depth]"


def count(labels: list[np.ndarray], num_ids: int = len(NAMES)) -> ClassCounts:
    total = ClassCounts.zeros(num_ids)
    for label in labels:
        total += ClassCounts.of_image(np.bincount(label.ravel(), minlength=256)[:num_ids])
    return total


def reference_weights(method: str) -> list[float]:
    """Compute the weights pixel by pixel, with a mean of 1 over the classes 0, 1 and 2."""
    weights = []
    for c in range(3):
        images = [label for label in LABELS if (label == c).any()]
        pixels = sum((label == c).sum() for label in images)
        if method == "inverse":
            weights.append(1 / pixels)
        elif method == "median":
            weights.append(sum((label != 255).sum() for label in images) / pixels)
        else:
            weights.append((1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA ** len(images)))
    return [*(np.array(weights) / np.mean(weights)), 1.0]


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_formulas(method):
    found = compute_class_weights(method, count(LABELS))
    assert found == pytest.approx(reference_weights(method), rel=1e-5)
    assert compute_class_weights(method, ClassCounts.zeros(4)) == [1, 1, 1, 1]


def test_median_frequencies_are_those_of_the_paper():
    """The weights are the median frequency divided by the frequency, up to a common factor."""
    counts = count(LABELS)
    frequency = (counts.pixels / np.maximum(counts.image_pixels, 1))[:3]
    expected = np.median(frequency) / frequency
    found = np.array(compute_class_weights("median", counts))[:3]
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-5)


def make_semseg(weights: object) -> Classification:
    return Classification(
        "semseg", class_names=NAMES, loss={"name": "focal", "class_weights": weights}
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"tasks.semseg.loss: class_weights: 2 weights for 4 classes"),
        ([1, 2, 3, -1], r"class_weights: must be inverse, median, effective, null or one number"),
        ([1, 2, 3, float("inf")], r"class_weights: must be inverse"),
        ("mean", r"class_weights: must be inverse, median, effective"),
        ([0, 0, 0, 0], r"tasks.semseg.loss: class_weights: all weights are 0; give at least"),
    ],
)
def test_wrong_weights_are_one_line(weights, message):
    with pytest.raises(ConfigError, match=message) as error:
        make_semseg(weights)
    assert "\n" not in str(error.value)


def test_missing_weights_are_an_error_that_names_the_fix():
    task = make_semseg("inverse")
    sample = torch.zeros(1, 4, 2, 4), torch.from_numpy(LABELS[0])[None]
    with pytest.raises(ConfigError, match="class_weights: 'inverse' is computed from training"):
        task.compute_loss(*sample)
    task.set_class_weights({"median": [9, 9, 9, 9], "inverse": [1, 2, 3, 4]})
    expected = make_semseg([1, 2, 3, 4]).compute_loss(*sample)
    assert task.compute_loss(*sample) == expected
    with pytest.raises(ConfigError, match=r"tasks.semseg.computed_class_weights: 1 weights for 4"):
        task.set_class_weights({"inverse": [1]})


def test_pickled_weights_are_not_on_the_device():
    """Worker processes of data loaders get the tasks, but must not open the GPU."""
    task, sample = make_semseg([1, 2, 3, 4]), (torch.randn(1, 4, 2, 4), torch.zeros(1, 2, 4))
    task.compute_loss(*(tensor.to("meta") for tensor in sample))
    assert pickle.loads(pickle.dumps(task)).compute_loss(*sample) == task.compute_loss(*sample)


def test_weights_of_zero_without_other_pixels_give_zero():
    task = make_semseg([0, 1, 1, 1])
    logits = torch.randn(1, 4, 2, 4, requires_grad=True)
    target = torch.tensor([0, 255, 0, 0, 0, 0, 0, 255]).view(1, 2, 4)
    loss = task.compute_loss(logits, target)
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


class FewLabels(DenseDataset):
    """Training split of label maps, of which one may be missing or wrong."""

    def __init__(self, labels: list[np.ndarray | None]) -> None:
        super().__init__("train", ("semseg",))
        self.ids, self._labels = tuple(map(str, range(len(labels)))), labels

    @classmethod
    def task_defaults(cls, **options: object) -> Mapping[str, dict[str, object]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        label = self._labels[index]
        targets = {} if label is None else {"semseg": label}
        return Sample(np.zeros((2, 4, 3), np.uint8), targets, self.ids[index])


@pytest.fixture
def experiment(monkeypatch) -> ExperimentConfig:
    tasks = [make_semseg("inverse"), Classification("parts", class_names=NAMES)]
    monkeypatch.setattr(class_weights, "build_tasks", lambda _: tasks)
    return make_tiny_experiment("tasks=[{name: semseg}]")


def get_weights(experiment: ExperimentConfig) -> dict[str, tuple[float, ...]]:
    return experiment.tasks[0].computed_class_weights


def test_weights_are_computed_from_all_images_and_printed(experiment, capsys):
    found = class_weights.compute_class_weights(experiment, FewLabels([*LABELS, None]))
    assert get_weights(found)["inverse"] == pytest.approx(reference_weights("inverse"), rel=1e-5)
    assert "semseg: class weights (inverse, from 4 of 4 training images): 0." in (
        capsys.readouterr().out
    )
    assert found.compute_config_hash() == experiment.compute_config_hash()


def test_number_of_images_is_limited(experiment, monkeypatch, capsys):
    monkeypatch.setattr(class_weights, "MAX_IMAGES", 2)
    class_weights.compute_class_weights(experiment, FewLabels(LABELS))
    assert "from 2 of 3 training images" in capsys.readouterr().out


def test_weights_do_not_depend_on_the_number_of_ranks(experiment, monkeypatch):
    """Each of two ranks counts a part of the images; the counts are gathered."""
    one = class_weights.compute_class_weights(experiment, FewLabels(LABELS))
    gathered: list[object] = []

    def keep(value):
        gathered.append(value)
        return [value]

    monkeypatch.setattr(class_weights, "get_world_size", lambda: 2)
    monkeypatch.setattr(class_weights, "all_gather_object", lambda value: [value, *gathered])
    monkeypatch.setattr(class_weights, "get_rank", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(class_weights, "all_gather_object", keep)
        class_weights.compute_class_weights(experiment, FewLabels(LABELS))
    monkeypatch.setattr(class_weights, "get_rank", lambda: 0)
    two = class_weights.compute_class_weights(experiment, FewLabels(LABELS))
    assert get_weights(two) == get_weights(one)


def test_invalid_label_is_an_error(experiment):
    with pytest.raises(DataError, match="train: 0: the semseg label has ids above 3"):
        class_weights.compute_class_weights(experiment, FewLabels([LABELS[0] + 4]))


def test_run_saves_the_weights_and_does_not_compute_them_again(tmp_path, monkeypatch, capsys):
    experiment = make_tiny_experiment(MEDIAN, "data.train_images=4", "data.val_images=2")
    train_experiment(experiment, tmp_path, "cpu", max_steps=1)
    assert capsys.readouterr().out.count("semseg: class weights (median, from 4 of 4") == 1
    saved = yaml.safe_load((tmp_path / CONFIG).read_text())["tasks"][0]
    assert saved["loss"] == {"name": "cross_entropy", "class_weights": "median"}
    dataset, task = build_dataset(experiment, "train"), build_tasks(experiment)[0]
    maps = [dataset[index].targets["semseg"] for index in range(len(dataset))]
    weights = compute_class_weights("median", count(maps, task.channels))
    assert saved["computed_class_weights"] == {"median": weights}
    assert len(set(weights)) > 2

    monkeypatch.setattr(class_weights, "count_classes", lambda *_: pytest.fail("counted again"))
    resumed = class_weights.compute_class_weights(reserve_run_dir(tmp_path, experiment), dataset)
    assert resumed.tasks[0].model_dump(mode="json") == saved
    assert "class weights" not in capsys.readouterr().out

    (semseg, _) = load_trained_model(tmp_path, device="cpu").tasks
    given = make_tiny_experiment(MEDIAN.replace("median", str(weights)))
    sample = torch.randn(1, task.channels, 4, 4), torch.randint(0, task.channels, (1, 4, 4))
    assert semseg.compute_loss(*sample) == build_tasks(given)[0].compute_loss(*sample)


def test_weights_of_a_run_are_those_of_its_baselines(tmp_path, monkeypatch, capsys):
    runs = []
    monkeypatch.setattr(train_run, "_train_run", lambda run, *_: runs.append(run))
    monkeypatch.setattr(train_run, "_compare", lambda *_: None)
    monkeypatch.setattr(train_run, "_is_replaceable", lambda *_: False)
    small = ("data.train_images=4", "data.val_images=2")
    train_experiment(make_tiny_experiment(MEDIAN, *small, "baselines=auto"), tmp_path / "run")
    semseg, _, both = runs
    assert len(set(get_weights(semseg)["median"])) > 2
    assert get_weights(both) == get_weights(semseg)
    assert capsys.readouterr().out.count("class weights (median, from 4 of 4") == 1
