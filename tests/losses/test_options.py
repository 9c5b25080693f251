"""The option `loss`: names, options, lists with weights, custom losses, and errors of one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from densemtl import registry
from densemtl.config.experiment import load_saved
from densemtl.config.input_paths import CONFIG
from densemtl.errors import ConfigError, ModelError
from densemtl.factory import build_tasks
from densemtl.losses.base import LabelInfo, LabelKind, Loss
from densemtl.losses.masked_reduction import fill_ignored, masked_mean
from densemtl.losses.options import list_losses
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import ImagePlacement, Predictions
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.loss_cases import LABELS, create_loss, make_sample

PADDED_SIZE, SIZE = (32, 48), (27, 45)


class Charbonnier(Loss):
    """Custom loss with one option."""

    kinds: ClassVar[tuple[LabelKind, ...]] = ("values",)

    def __init__(self, labels: LabelInfo, *, epsilon: float = 1.0) -> None:
        super().__init__(labels)
        self.epsilon = epsilon

    def compute(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        error = logits.float() - fill_ignored(target, valid.unsqueeze(1))
        return masked_mean((error.square() + self.epsilon).sqrt(), valid.unsqueeze(1))


@pytest.fixture
def charbonnier(monkeypatch) -> str:
    module = ModuleType("toybox")
    module.Charbonnier, module.Other = Charbonnier, ModuleType
    monkeypatch.setitem(sys.modules, "toybox", module)
    return "toybox:Charbonnier"


def test_losses_of_each_kind():
    classes = ["cross_entropy", "dice", "focal", "lovasz", "ohem"]
    assert list_losses("classes") == classes
    assert list_losses("binary") == ["balanced_bce", *classes]
    assert {*list_losses("values")} >= {"l1", "silog", "multi_scale_gradient"}


@pytest.mark.parametrize(
    ("task", "loss", "lines"),
    [
        ("depth", "silg", ["loss: no 'silg' in losses: did you mean 'silog'?"]),
        ("depth", "dice", ["loss: 'dice' is no loss for values: choose from berhu, "]),
        ("semseg", "silog", ["loss: 'silog' is no loss for classes: choose from cross_entropy"]),
        ("depth", "base", ["loss: no 'base' in losses"]),
        ("depth", 3, ["loss: must be a name, {name: .., option: ..} or a list of them, not 3"]),
        ("depth", [], ["loss: list at least one loss"]),
        ("depth", {"variance_focus": 1}, ["loss: must be a name, {name: .., option: ..} or a"]),
        ("depth", {"name": "berhu", "scale": 1}, ["loss.scale: unknown key, choose from thresh"]),
        ("depth", {"name": "log_l1", "a": 1}, ["loss.a: unknown key, log_l1 has no options; r"]),
        ("semseg", {"name": "focal", "gamma": -1}, ["loss.gamma: Input should be greater than"]),
        ("semseg", {"name": "focal", "weight": 0}, ["loss.weight: Input should be greater than 0"]),
        (
            "semseg",
            ["focal", {"name": "dice", "weight": "much"}, {"name": "ohem", "min_kept": 2}],
            ["loss.1.weight: Input should be a valid number", "loss.2.min_kept: Input should be"],
        ),
        (
            "semseg",
            {"name": "focal", "class_weights": "mean"},
            ["loss.class_weights: must be inverse, median, effective, null or one number from 0"],
        ),
        ("depth", "nowhere:Loss", ["loss: cannot import 'nowhere:Loss': No module named"]),
        ("depth", "toybox:Other", ["loss: 'toybox:Other' does not implement densemtl.losses.base"]),
        ("semseg", "toybox:Charbonnier", ["loss: 'toybox:Charbonnier' is no loss for classes"]),
    ],
)
def test_wrong_losses_are_found_when_the_configuration_is_loaded(charbonnier, task, loss, lines):
    spec = str({"name": task, "loss": loss}).replace("'", '"')
    with pytest.raises(ConfigError) as error:
        make_tiny_experiment(f"tasks=[{spec}]")
    found = str(error.value).splitlines()
    assert len(found) == len(lines)
    for line, start in zip(found, lines, strict=True):
        assert line.startswith(f"command line: tasks.0.{start}")
    with pytest.raises(ConfigError, match=r"^tasks\.x\.loss"):  # without pydantic
        Depth("x", loss=loss) if task == "depth" else Classification(
            "x", class_names=["a"], loss=loss
        )


def test_losses_without_labels_need_another_loss():
    with pytest.raises(ConfigError, match=r"^tasks.depth.loss: no loss compares predictions with"):
        Depth("depth", loss="edge_aware_smoothness")


def test_sum_is_weighted():
    sample = make_sample("classes")
    names = ["a", "b", "c", "d"]
    parts = [{"name": "cross_entropy", "label_smoothing": 0.2}, {"name": "dice", "weight": 0.5}]
    task = Classification("semseg", class_names=names, loss=parts)
    first = create_loss("cross_entropy", "classes", label_smoothing=0.2)(*sample)
    second = create_loss("dice", "classes")(*sample)
    found = task.compute_loss(sample[0], sample[1])
    torch.testing.assert_close(found, first + 0.5 * second)


def test_custom_loss(charbonnier):
    spec = f'{{name: "{charbonnier}", epsilon: 4.0}}'
    experiment = make_tiny_experiment(f"tasks=[{{name: depth, loss: {spec}}}]")
    (task,) = build_tasks(experiment)
    target = torch.tensor([[[[1.0, torch.nan]]]])
    assert task.compute_loss(target.nan_to_num(7), target) == 2
    with pytest.raises(ConfigError, match="loss: names toybox:Charbonnier, code that"):
        load_saved(experiment.to_yaml(), CONFIG)


def test_overridden_loss_of_a_subclass_is_used_at_low_resolution():
    class Constant(Classification):
        def compute_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return 3 * logits.mean()

    task, logits = Constant("x", class_names=["a", "b"]), torch.ones(1, 2, 4, 4)
    target = {"x": torch.zeros(1, 4, 4, dtype=torch.uint8)}
    assert compute_task_losses([task], Predictions({"x": logits}), target).tasks["x"] == 3


def test_binary_focal_loss_equals_torchvision():
    logits, target, valid = make_sample("binary")
    found = create_loss("focal", "binary", gamma=2.0)(logits, target, valid)
    expected = torchvision.ops.sigmoid_focal_loss(
        logits[:, 0][valid], target[valid].float(), alpha=-1, gamma=2.0, reduction="mean"
    )
    torch.testing.assert_close(found, expected)


def test_cross_entropy_with_weights_equals_torch():
    logits, target, valid = make_sample("classes")
    options: dict[str, Any] = {"class_weights": [0.5, 2, 1, 3], "label_smoothing": 0.1}
    expected = F.cross_entropy(
        logits,
        torch.where(valid, target.long(), -1),
        torch.tensor(options["class_weights"]),
        ignore_index=-1,
        label_smoothing=0.1,
    )
    found = create_loss("cross_entropy", "classes", **options)(logits, target, valid)
    torch.testing.assert_close(found, expected)


def test_focal_loss_of_certain_predictions_has_finite_gradient():
    logits = torch.tensor([100.0, -100.0]).view(1, 2, 1, 1).requires_grad_()
    target = torch.zeros(1, 1, 1, dtype=torch.uint8)
    loss: Loss = registry.create(
        "losses", "focal", LabelInfo("classes", 2, 2), options={"gamma": 0.5}
    )
    loss.compute(logits, target, target == 0).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("cross_entropy", "classes", {"class_weights": [1, 2, 3, 0], "label_smoothing": 0.1}),
        ("cross_entropy", "binary", {"class_weights": [1, 2]}),
        ("focal", "classes", {}),
        ("ohem", "classes", {}),
        ("dice", "binary", {}),
        ("lovasz", "classes", {}),
        ("lovasz", "binary", {}),
        ("multi_scale_gradient", "values", {}),
        ("angular", "directions", {}),
    ],
)
def test_loss_of_low_resolution_equals_that_of_full_size(name, kind, options):
    loss: Loss = registry.create("losses", name, LABELS[kind], options=options)
    logits = torch.randn(
        2, LABELS[kind].channels, 8, 12, generator=torch.Generator().manual_seed(1)
    )
    target = torch.randint(0, max(LABELS[kind].num_ids, 2), (2, *SIZE))
    valid = torch.rand(2, *SIZE) > 0.3
    if kind in ("values", "directions"):
        target = F.normalize(torch.rand(2, LABELS[kind].channels, *SIZE) + 0.1)
    placement = ImagePlacement(SIZE, (0, 0, *SIZE))

    def compute_low_res(leaf):
        lazy = LazyLogits.from_placement(leaf, placement, PADDED_SIZE)
        return loss.compute_low_res(lazy, target, valid)

    def compute_full_size(leaf):
        full = F.interpolate(leaf, size=PADDED_SIZE, mode="bilinear")[..., : SIZE[0], : SIZE[1]]
        return loss.compute(full, target, valid)

    found = [differentiate(each, logits) for each in (compute_low_res, compute_full_size)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def differentiate(compute: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = compute(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def test_smoothness_uses_the_image_of_the_batch():
    smoothness = {"name": "edge_aware_smoothness", "weight": 0.1}
    task, plain = Depth("depth", loss=["l1", smoothness]), Depth("depth", loss="l1")
    logits = torch.rand(1, 1, 4, 6)
    target = torch.rand(1, 1, 4, 6)
    target[..., :2] = torch.nan
    edges = (torch.arange(6) % 2 * 255).expand(1, 3, 4, 6).byte()

    def compute(tasks, image):
        predictions = Predictions({"depth": logits})
        return compute_task_losses(tasks, predictions, {"depth": target}, image).tasks["depth"]

    without = compute([plain], None)
    flat, at_edges = (compute([task], image) for image in (torch.zeros_like(edges), edges))
    assert without < at_edges < flat
    torch.testing.assert_close(
        flat - without,
        0.1 * create_loss_of_image(torch.zeros_like(edges))(logits, target, ~target[:, 0].isnan()),
    )
    with pytest.raises(ModelError, match="a loss of task 'depth' needs the image"):
        compute([task], None)


def create_loss_of_image(image):
    loss: Any = registry.create("losses", "edge_aware_smoothness", LABELS["values"], options={})
    return lambda *sample: loss.compute(*sample, image=image)
