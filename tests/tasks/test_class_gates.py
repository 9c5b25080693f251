"""Tests of `entire_space`: labels, loss of partial labels, models, errors and subsets of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import densemtl
from densemtl.balancing.fixed import Fixed
from densemtl.config.sections import TrainConfig
from densemtl.data.batching import EvalCollate, TrainCollate
from densemtl.engine.sequential_heads import check_sequential_heads
from densemtl.engine.task_subset import load_subset
from densemtl.errors import ConfigError
from densemtl.factory import build_tasks
from densemtl.losses.partial_labels import PARTIAL_ID
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.base import Task
from densemtl.tasks.class_gates import complete_targets, find_gates
from densemtl.types import ImagePlacement, Sample
from tests.helpers.experiments import make_tiny_experiment

GATE = {"of": "semseg", "classes": ["person"]}
HOST = {"name": "semseg", "class_names": ["wall", "person", "floor"]}
PARTS = {"name": "human_parts", "class_names": ["background", "head", "torso", "leg"]}


def make_tasks(**options: Any) -> list[Task]:
    return densemtl.create_tasks([HOST, {**PARTS, "entire_space": {**GATE, **options}}])


def make_target() -> Tensor:
    """Return ids with ignored, partial and all classes, shape (2, 4, 4)."""
    ids = torch.tensor([0, 1, 2, 3, 255, PARTIAL_ID], dtype=torch.uint8)
    choice = torch.randint(0, 6, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    return ids[choice]


def test_ignored_pixels_get_the_labels_that_the_other_task_implies() -> None:
    """The rows are parts that are background, a part and ignored; the columns are the host's."""
    host = torch.tensor([[[0, 1, 255]] * 3], dtype=torch.uint8)
    parts = torch.tensor([[[0] * 3, [2] * 3, [255] * 3]], dtype=torch.uint8)
    targets = complete_targets(find_gates(make_tasks()), {"semseg": host, "human_parts": parts})
    assert targets["human_parts"].tolist() == [[[0] * 3, [2] * 3, [0, PARTIAL_ID, 255]]]
    assert targets["human_parts"].dtype == torch.uint8
    assert targets["semseg"] is host


@pytest.mark.parametrize("low_res", [False, True])
def test_loss_is_the_mean_likelihood_of_full_and_partial_labels(low_res: bool) -> None:
    parts, target = make_tasks()[1], make_target()
    logits = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    if low_res:
        lazy = LazyLogits.from_placement(logits, ImagePlacement((4, 4), (0, 0, 4, 4)))
        loss = parts.compute_loss_low_res(lazy, target)
    else:
        loss = parts.compute_loss(logits, target)
    expected, count = torch.zeros(()), 0
    probs = logits.softmax(dim=1)
    for batch, row, column in np.ndindex(2, 4, 4):
        label = int(target[batch, row, column])
        if label != 255:
            likely = slice(1, None) if label == PARTIAL_ID else slice(label, label + 1)
            expected = expected - probs[batch, likely, row, column].sum().log()
            count += 1
    torch.testing.assert_close(loss, expected / count)
    assert int(parts.count_labels(target)) == count
    grads = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (loss, expected)]
    torch.testing.assert_close(grads[0], grads[1] / count)


@pytest.mark.parametrize("fill", [255, PARTIAL_ID, 1])
def test_loss_is_finite_if_only_one_kind_of_label_exists(fill: int) -> None:
    parts = make_tasks()[1]
    logits = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = parts.compute_loss(logits, torch.full((1, 2, 2), fill, dtype=torch.uint8))
    loss.backward()
    assert bool(loss > 0) == (fill != 255)
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert bool((logits.grad != 0).any()) == (fill != 255)


@pytest.mark.parametrize(
    ("decoder", "options"),
    [
        *(("hard_sharing", options) for options in ({}, {"gate": "separate"}, {"detach": True})),
        ("pad_net", {}),
    ],
)
def test_outputs_of_models_are_log_probabilities(decoder: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    tasks = make_tasks(**options)
    model = densemtl.create_model(decoder, backbone="test_resnet", tasks=tasks, head="linear")
    predictions = model(torch.randint(0, 256, (2, 3, 32, 32)).float(), full_size=False)
    outputs = [predictions.logits, *predictions.aux_logits]
    assert len(outputs) == (2 if decoder == "pad_net" else 1)
    for output in outputs:
        sums = output["human_parts"].logsumexp(dim=1)
        torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-5)
        if options.get("gate") != "separate":
            inside = output["semseg"].softmax(dim=1)[:, 1]
            torch.testing.assert_close(1 - output["human_parts"][:, 0].exp(), inside)
    head = [weight for name, weight in model.named_parameters() if "heads.semseg" in name]
    predictions.logits["human_parts"][:, 1].sum().backward()
    reaches_host = any(weight.grad is not None and weight.grad.any() for weight in head)
    if decoder == "hard_sharing":
        assert reaches_host == (options == {})


def test_only_training_labels_are_completed() -> None:
    sample = Sample(
        np.zeros((2, 2, 3), np.uint8), {"semseg": np.array([[0, 1], [2, 255]], np.uint8)}, "a"
    )
    item = (sample, ImagePlacement((2, 2), (0, 0, 2, 2)))
    tasks = make_tasks()
    training = TrainCollate(tasks)([item]).targets["human_parts"]
    assert training.tolist() == [[[0, PARTIAL_ID], [0, 255]]]
    assert (EvalCollate(tasks)([item]).targets["human_parts"] == 255).all()
    assert (EvalCollate(tasks[1:])([item]).targets["human_parts"] == 255).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "semsg"}, "entire_space.of: no other task 'semsg' with classes, did you mean"),
        ({"of": "human_parts"}, "entire_space.of: no other task 'human_parts'"),
        ({"classes": ["persn"]}, "entire_space.classes: no class 'persn' in 'semseg', did you"),
        ({"classes": [3]}, "entire_space.classes: no class 3 in 'semseg', ids are 0 to 2"),
        ({"classes": ["wall", 1, 2]}, "entire_space.classes: are all classes of 'semseg'"),
    ],
)
def test_wrong_hosts_and_classes_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="tasks.human_parts." + message):
        find_gates(make_tasks(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"classes": []}, "classes"), ({"gate": "none"}, "gate"), ({"from": "depth"}, "from")],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"entire_space.{message}"):
        make_tasks(**options)


def test_a_single_class_cannot_be_gated() -> None:
    with pytest.raises(ConfigError, match="needs 2 to 254 classes, not 1"):
        densemtl.create_tasks([{**PARTS, "class_names": ["head"], "entire_space": GATE}])


def test_baselines_and_evaluations_of_one_task_have_no_gate() -> None:
    gated = "{name: human_parts, entire_space: {of: semseg, classes: [person]}}"
    data = "data={name: synthetic, size: [32, 40], train_images: 8, val_images: 4}"
    experiment = make_tiny_experiment(f"tasks=[semseg, {gated}]", data)
    assert "entire_space" in experiment.tasks[1].options
    assert "entire_space" not in experiment.to_single_task("human_parts").tasks[0].options

    def load(overrides: Any) -> Any:
        return make_tiny_experiment(f"tasks=[semseg, {gated}]", data, *overrides)

    names = ["semseg", "human_parts"]
    subset = load_subset(load, names, ["tasks=[human_parts]"], Path("run"))
    assert subset.evaluated.list_task_names() == ["human_parts"]
    assert find_gates(build_tasks(subset.model))
    assert EvalCollate(build_tasks(subset.evaluated)).gates == ()


def test_one_task_can_be_decoded_alone_if_its_gate_is_separate() -> None:
    tasks = make_tasks(gate="separate")
    model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=tasks).eval()
    image = torch.randint(0, 256, (1, 3, 32, 32)).float()
    features, size = model.compute_shared_features(image)
    alone = model.decode_task("human_parts", features, size).logits["human_parts"]
    expected = model(image, full_size=False).logits["human_parts"]
    torch.testing.assert_close(alone, expected)


def test_sequential_heads_cannot_read_the_prediction_of_another_task() -> None:
    tasks = make_tasks()
    model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=tasks)
    with pytest.raises(ConfigError, match="human_parts reads the prediction of semseg"):
        check_sequential_heads(TrainConfig(sequential_heads=True), model, Fixed(tasks))
