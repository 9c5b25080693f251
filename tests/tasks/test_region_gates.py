"""Tests of `entire_space` of values: labels, loss, models, decoding, metrics, errors, training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import densemtl
from densemtl.data.batching import EvalCollate, TrainCollate
from densemtl.engine.loading import load_trained_model
from densemtl.errors import ConfigError
from densemtl.evaluation.evaluate import evaluate
from densemtl.inference.predictor import Predictor
from densemtl.losses.value_validity import INSIDE, OUTSIDE
from densemtl.metrics.validity import Validity
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.runs.train_run import train_experiment
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.tasks.class_gates import complete_targets, find_gates
from densemtl.tasks.pseudo_labels import make_pseudo_label
from densemtl.types import Batch, ImagePlacement, Predictions, Sample
from tests.helpers.experiments import make_tiny_experiment

SEPARATE = {"gate": "separate"}
GATE = {"of": "semseg", "classes": ["person"]}
HOST = {"name": "semseg", "class_names": ["wall", "person", "floor"]}
KINDS: dict[str, dict[str, Any]] = {
    "depth": {},
    "normals": {},
    "flow": {"kind": "direction", "channels": 2, "loss": "cosine"},
    "albedo": {"kind": "regression", "channels": 3, "loss": ["l1", "multi_scale_gradient"]},
}
CPU = ExecutionConfig(torch.device("cpu"))


def make_tasks(name: str = "depth", gate: dict[str, Any] | None = SEPARATE) -> list[Task]:
    option = {} if gate is None else {"entire_space": gate}
    return densemtl.create_tasks([HOST, {"name": name, **KINDS[name], **option}])


def draw_target(channels: int) -> Tensor:
    """Return values, ignored pixels, and those inside and outside, shape (2, channels, 8, 8)."""
    generator = torch.Generator().manual_seed(0)
    target = F.normalize(torch.rand(2, channels, 8, 8, generator=generator) + 0.1, dim=1)
    choice = torch.randint(0, 6, (2, 1, 8, 8), generator=generator)
    for number, value in enumerate((torch.nan, INSIDE, OUTSIDE)):
        target = target.masked_fill(choice == number, value)
    return target


def compute_loss(task: Task, logits: Tensor, target: Tensor, low_res: bool = False) -> Tensor:
    if not low_res:
        return task.compute_loss(logits, target)
    lazy = LazyLogits.from_placement(logits, ImagePlacement((8, 8), (0, 0, 8, 8)))
    return task.compute_loss_low_res(lazy, target)


def test_ignored_pixels_are_marked_by_the_labels_of_the_other_task() -> None:
    """The columns are labels of the other task outside, inside and ignored."""
    host = torch.tensor([[[0, 1, 255]] * 2], dtype=torch.uint8)
    depth = torch.tensor([[[[2.0] * 3, [torch.nan] * 3]]])
    targets = {"semseg": host, "depth": depth}
    completed = complete_targets(find_gates(make_tasks("depth", GATE)), targets)
    expected = torch.tensor([[[[2.0] * 3, [OUTSIDE, INSIDE, torch.nan]]]])
    torch.testing.assert_close(completed["depth"], expected, equal_nan=True, rtol=0, atol=0)
    assert completed["semseg"] is host


def test_without_another_task_unlabeled_pixels_of_labeled_images_are_outside() -> None:
    target = torch.tensor([[1.0, torch.nan, torch.inf], [torch.nan] * 3]).view(2, 1, 1, 3)
    (gate,) = find_gates(make_tasks())
    completed = complete_targets([gate], {"depth": target})["depth"].view(2, 3)
    expected = torch.tensor([[1.0, OUTSIDE, OUTSIDE], [torch.nan] * 3])
    torch.testing.assert_close(completed, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("low_res", [False, True])
@pytest.mark.parametrize("name", sorted(KINDS))
def test_loss_is_that_of_the_values_plus_the_likelihood_of_the_validity(
    name: str, low_res: bool
) -> None:
    """The validity also leaves the gradient of the values as it is."""
    plain, task = make_tasks(name, None)[1], make_tasks(name)[1]
    channels = plain.channels
    assert (task.channels, task.value_channels) == (channels + 1, channels)
    target = draw_target(channels)
    logits = torch.randn(2, channels + 1, 8, 8, generator=torch.Generator().manual_seed(1))
    values, gate = logits[:, :-1].clone(), logits[:, -1].clone()
    for each in (logits, values, gate):
        each.requires_grad_()
    loss = compute_loss(task, logits, target, low_res)
    nothing = target.masked_fill(target.isinf(), torch.nan)
    likelihood, count = torch.zeros(()), 0
    for index in np.ndindex(2, 8, 8):
        label = float(target[index[0], 0, index[1], index[2]])
        if not math.isnan(label):
            probability = torch.sigmoid(gate[index])
            likelihood = likelihood - torch.log(
                1 - probability if label == OUTSIDE else probability
            )
            count += 1
    expected = compute_loss(plain, values, nothing, low_res) + likelihood / count
    torch.testing.assert_close(loss, expected)
    assert int(task.count_labels(target)) == count == int(task.compute_label_mask(target).sum())
    assert int(plain.count_labels(nothing)) < count
    (grad,) = torch.autograd.grad(loss, logits)
    parts = torch.autograd.grad(expected, (values, gate))
    torch.testing.assert_close(grad[:, :-1], parts[0])
    torch.testing.assert_close(grad[:, -1], parts[1])


@pytest.mark.parametrize("fill", [torch.nan, INSIDE, OUTSIDE, 1.0])
def test_loss_is_finite_if_only_one_kind_of_label_exists(fill: float) -> None:
    task = make_tasks()[1]
    logits = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = task.compute_loss(logits, torch.full((1, 1, 8, 8), fill))
    loss.backward()
    assert bool(loss > 0) != math.isnan(fill)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    reached = [bool(part.any()) for part in logits.grad[0]]
    assert reached == [fill == 1.0, not math.isnan(fill)]


def test_a_constant_validity_is_learned_as_the_share_of_pixels_with_values() -> None:
    task, target = make_tasks()[1], draw_target(1)
    outside = (target == OUTSIDE).sum()
    share = 1 - outside / task.count_labels(target)
    logits = torch.ones(2, 2, 8, 8)
    logits[:, 1] = torch.logit(share)
    gate = torch.zeros(()).requires_grad_()
    shifted = torch.cat([logits[:, :1], logits[:, 1:] + gate], dim=1)
    (slope,) = torch.autograd.grad(task.compute_loss(shifted, target), gate)
    assert float(slope) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("decoder", ["hard_sharing", "pad_net"])
@pytest.mark.parametrize("gate", [GATE, {**GATE, "detach": True}, {**GATE, **SEPARATE}, SEPARATE])
def test_models_predict_the_validity(gate: dict[str, Any], decoder: str) -> None:
    torch.manual_seed(0)
    tasks = make_tasks("normals", gate)
    model = densemtl.create_model(decoder, backbone="test_resnet", tasks=tasks, head="linear")
    image = torch.randint(0, 256, (2, 3, 32, 32)).float()
    predictions = model(image, full_size=False)
    outputs = [predictions.logits, *predictions.aux_logits]
    assert len(outputs) == (2 if decoder == "pad_net" else 1)
    reads_host = "gate" not in gate
    for output in outputs:
        assert output["normals"].shape[1] == 4
        inside = output["semseg"].softmax(dim=1)[:, 1]
        same = torch.allclose(torch.sigmoid(output["normals"][:, 3]), inside, atol=1e-6)
        assert same == reads_host
    if decoder == "hard_sharing":
        predictions.logits["normals"][:, 3].sum().backward()
        head = [weight for name, weight in model.named_parameters() if "heads.semseg" in name]
        reached = any(weight.grad is not None and bool(weight.grad.any()) for weight in head)
        assert reached == (gate == GATE)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_values_without_validity_are_marked_and_the_others_are_those_of_a_plain_task(
    name: str,
) -> None:
    plain, task = make_tasks(name, None)[1], make_tasks(name)[1]
    logits = torch.randn(2, task.channels, 5, 6, generator=torch.Generator().manual_seed(1))
    decoded = task.decode(logits)
    assert torch.equal(decoded, plain.decode(logits[:, :-1]))
    masked, valid = task.mask_invalid(decoded, logits), logits[:, -1:] >= 0
    assert torch.equal(masked.isfinite(), valid.expand_as(decoded))
    assert torch.equal(masked[valid.expand_as(decoded)], decoded[valid.expand_as(decoded)])
    assert torch.equal(plain.mask_invalid(decoded, logits), decoded)
    label = make_pseudo_label(task, logits)
    assert not bool(label[(~valid).expand_as(label)].isfinite().any())
    assert task.make_empty_label((5, 6)).shape == plain.make_empty_label((5, 6)).shape
    restored = task.inverse_transform_logits(logits, 2.0, True)
    assert torch.equal(restored[:, :-1], plain.inverse_transform_logits(logits[:, :-1], 2.0, True))
    assert torch.equal(restored[:, -1], logits[:, -1].flip(-1))


def test_validity_metric_equals_a_count_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.rand(4, 2, 5, 6, generator=generator) for _ in range(2))
    for maps in (prediction, target):
        maps.masked_fill_(torch.rand(4, 1, 5, 6, generator=generator) < 0.4, torch.nan)
    target[3] = torch.nan
    counts = np.zeros((2, 2))
    for image, row, column in np.ndindex(3, 5, 6):
        is_unlabeled = math.isnan(target[image, 0, row, column])
        is_predicted = not math.isnan(prediction[image, 0, row, column])
        counts[int(is_unlabeled)] += [1, is_predicted]
    metric = Validity()
    metric.update(prediction[:1], target[:1])
    metric.update(prediction[1:], target[1:])
    recall, false_positives = 100 * counts[:, 1] / counts[:, 0]
    expected = {"valid_recall": recall, "valid_FPR": false_positives}
    assert metric.compute_dict() == pytest.approx(expected)


class Constant(torch.nn.Module):
    """Model with depth 3 everywhere, which is valid in the left half."""

    def forward(self, image: Tensor) -> Predictions:
        maps = image[:, :2].float() * 0 + 3
        maps[:, 1, :, maps.shape[3] // 2 :] = -3
        return Predictions({"semseg": image.float(), "depth": maps})


def test_errors_of_values_are_those_of_all_labeled_pixels() -> None:
    added = {"name": "false_positives_outside", **GATE}
    depth = {"name": "depth", "entire_space": SEPARATE, "metrics": [added]}
    tasks = densemtl.create_tasks([HOST, depth])
    label = torch.full((1, 1, 4, 4), 2.0)
    label[..., 0] = torch.nan
    host = torch.tensor([[[0, 0, 1, 0]] * 4], dtype=torch.uint8)
    frame = ImagePlacement((4, 4), (0, 0, 4, 4))
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    batch = Batch(image, {"semseg": host, "depth": label}, ["a"], [frame])
    saved = {}

    def save(task: Task, name: str, prediction: Any) -> None:
        saved[task.name] = prediction

    scores = evaluate(Constant(), [batch], tasks, "survey", CPU, save)["depth"]
    assert scores["rmse"] == 1
    assert scores["valid_recall"] == pytest.approx(100 / 3)
    assert scores["valid_FPR"] == 100
    assert scores["FPR_outside"] == 100  # the first column is the only one without label
    assert (saved["depth"] == 3).all()  # files have the scores of the model


def test_only_training_labels_are_completed() -> None:
    sample = Sample(np.zeros((2, 2, 3), np.uint8), {"depth": np.array([[1, np.nan]] * 2)}, "a")
    sample.targets["depth"] = sample.targets["depth"].astype(np.float32)
    item = (sample, ImagePlacement((2, 2), (0, 0, 2, 2)))
    tasks = make_tasks()
    assert (TrainCollate(tasks)([item]).targets["depth"][..., 1] == OUTSIDE).all()
    assert EvalCollate(tasks)([item]).targets["depth"][..., 1].isnan().all()


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({}, "of: is missing; name another task, or set gate to separate"),
        ({**SEPARATE, "classes": ["person"]}, "of: is missing"),
        ({"of": "semseg"}, "classes: is missing; list classes of 'semseg'"),
        ({**GATE, "gate": "none"}, "gate"),
        ({**GATE, "off": "semseg"}, "off"),
    ],
)
def test_wrong_options_are_errors(gate: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"entire_space.{message}"):
        make_tasks("depth", gate)


def test_other_tasks_and_classes_that_do_not_exist_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"depth\.entire_space\.of: no other task 'edge'"):
        find_gates(make_tasks("depth", {**GATE, "of": "edge"}))
    with pytest.raises(ConfigError, match=r"depth\.entire_space\.classes: no class 'dog'"):
        find_gates(make_tasks("depth", {**GATE, "classes": ["dog"]}))


@pytest.mark.parametrize("gate", ["{of: semseg, classes: [wall, floor]}", "{gate: separate}"])
def test_training_evaluation_and_prediction(gate: str, tmp_path: Path) -> None:
    tasks = f"tasks=[semseg, {{name: depth, entire_space: {gate}}}]"
    experiment = make_tiny_experiment(tasks, "train.epochs=1", "train.grad_accum_steps=2")
    has_host = "of" in gate
    baseline = experiment.to_single_task("depth").tasks[0].options
    assert ("entire_space" in baseline) != has_host
    results = train_experiment(experiment, tmp_path, "cpu")
    metrics = results.tasks["depth"].metrics
    assert 0 <= metrics["valid_recall"] <= 100
    part = densemtl.evaluate(tmp_path, ["tasks=[depth]"], device="cpu").tasks["depth"].metrics
    assert part == pytest.approx(metrics, nan_ok=True)
    trained = load_trained_model(tmp_path, device="cpu")
    depth_head = [name for name, _ in trained.model.named_parameters() if "heads.depth" in name]
    with torch.no_grad():  # values are valid where the head says so
        bias = trained.model.get_parameter(depth_head[-1])
        bias[1] -= 100
    image = np.zeros((32, 40, 3), np.uint8)
    for options in ({}, {"flip": True}):
        maps = Predictor.from_trained(trained, **options)(image)["depth"]
        assert maps.shape == (32, 40)
        if not has_host:
            assert np.isnan(maps).all()
