"""Tests of the distillation of features: loss, teachers, gradients, resume and errors."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.analysis.model_summary import summarize
from densemtl.backbones.backbone import Backbone
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.distillation import DistillConfig, FeatureTeacherConfig
from densemtl.engine.build_distillation import build_distillation
from densemtl.engine.distillation import Distillation, compute_feature_loss
from densemtl.engine.feature_teacher import FeatureTeacher, choose_size
from densemtl.engine.parameter_groups import get_group_lrs
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.run_log import read_log
from densemtl.engine.train_batches import TrainBatches
from densemtl.engine.trainer import train
from densemtl.engine.weights_file import load_weights
from densemtl.errors import UserError
from densemtl.factory import build_model, build_tasks
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.data_check import warn_about_random_frozen
from densemtl.runtime.execution import ExecutionConfig
from densemtl.types import FeatureInfo, Size
from tests.engine.test_trainer import assert_equal_runs, make_run
from tests.helpers.experiments import make_tiny_experiment

CPU = ExecutionConfig(torch.device("cpu"), channels_last=False)
VIT = "backbone={name: test_vit, pretrained: false}"
TEACHER = "{name: test_vit, pretrained: false}"
DISTILL = f"distill={{teachers: [{TEACHER}], weight: 3}}"
ONE_STEP = ("data.train_images=4", "loader.batch_size=4", "data.val_images=2", "train.epochs=1")


def make_model(decoder: str = "hard_sharing", *overrides: str) -> MultiTaskModel:
    experiment = make_tiny_experiment(VIT, f"decoder={{name: {decoder}}}", *overrides)
    torch.manual_seed(0)
    return build_model(experiment, build_tasks(experiment))


def make_teacher(name: str = "test_vit", size: Size = (32, 48)) -> FeatureTeacher:
    return FeatureTeacher(FeatureTeacherConfig(name=name, pretrained=False), size, (0, 1, 2))


def make_image(size: Size = (32, 48), channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, channels, *size), dtype=torch.uint8, generator=generator)


def compute(
    distillation: Distillation, model: MultiTaskModel, image: Tensor
) -> tuple[dict[str, Tensor], dict[int, int]]:
    """Return the losses, and the number of recorded maps of each level."""
    with distillation.recording() as maps:
        model(image)
    losses = distillation.compute_losses(maps, image, CPU)
    return losses, {level: len(features) for (_, level), features in maps.items()}


@pytest.mark.parametrize("per_image", [False, True])
def test_loss_equals_plain_loops(per_image: bool) -> None:
    feature, target = torch.randn(2, 3, 2, 4), 2 * torch.randn(2, 3, 2, 4)
    similarities, distances = [], []
    for image in range(2):
        pairs = []
        for y in range(2):
            for x in range(4):
                a, b = feature[image, :, y, x].tolist(), target[image, :, y, x].tolist()
                pairs.append((a, b))
                for p, q in zip(a, b, strict=True):
                    gap = abs(p - q)
                    distances.append(gap - 0.5 if gap > 1 else gap**2 / 2)
        if per_image:
            pairs = [([v for a, _ in pairs for v in a], [v for _, b in pairs for v in b])]
        for a, b in pairs:
            product = sum(p * q for p, q in zip(a, b, strict=True))
            similarities.append(product / math.hypot(*a) / math.hypot(*b))
    expected = 0.7 * (1 - sum(similarities) / len(similarities))
    expected += 0.2 * sum(distances) / len(distances)
    actual = compute_feature_loss(feature, target, cosine=0.7, smooth_l1=0.2, per_image=per_image)
    assert float(actual) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("size", "other"), [((2, 3), (4, 6)), ((4, 6), (2, 3)), ((2, 6), (4, 3))])
def test_the_smaller_map_is_enlarged(size: Size, other: Size) -> None:
    feature, target = torch.randn(1, 3, *size), torch.randn(1, 3, *other)
    large = [
        F.interpolate(each, (4, 6), mode="bilinear", align_corners=False)
        for each in (feature, target)
    ]
    options = {"cosine": 0.9, "smooth_l1": 0.1, "per_image": False}
    actual = compute_feature_loss(feature, target, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(actual, compute_feature_loss(*large, **options))  # type: ignore[arg-type]


def test_equal_networks_with_identity_projections_have_no_loss() -> None:
    model, teacher = make_model(), make_teacher()
    backbone = model.decoder.get_submodule("backbone")
    teacher.backbone = deepcopy(backbone)
    distillation = Distillation(DistillConfig(teachers=("test_vit",)), model, [teacher])
    for projection in distillation.projections[0]:
        nn.init.dirac_(projection.weight)
        nn.init.zeros_(projection.bias)
    losses, _ = compute(distillation, model, make_image())
    assert 0 <= float(losses["distill/test_vit"].detach()) < 1e-5
    with torch.no_grad():
        backbone.get_parameter("net.model.blocks.0.mlp.fc2.weight").add_(0.05)
    losses, _ = compute(distillation, model, make_image())
    assert float(losses["distill/test_vit"].detach()) > 1e-3


def test_loss_is_the_weighted_sum_over_levels_of_projected_features() -> None:
    """The student has four levels of strides 4 to 32, the teacher four of stride 16."""
    experiment = make_tiny_experiment()
    model = build_model(experiment, build_tasks(experiment)).eval()
    entries = [{"name": "test_vit", "weight": 2}, "test_vit"]
    config = DistillConfig.model_validate({"teachers": entries, "weight": 3, "taps": [3, 1]})
    teachers = [make_teacher(size=(32, 64)), make_teacher(size=(32, 64))]
    distillation = Distillation(config, model, teachers)
    image = make_image((32, 64))
    losses, counts = compute(distillation, model, image)
    assert counts == {0: 1, 1: 1, 2: 1, 3: 1}
    maps = model.decoder.get_submodule("backbone")(model.normalize(image))
    assert list(losses) == ["distill/test_vit", "distill/test_vit_2"]
    for index, (loss, factor) in enumerate(zip(losses.values(), (6, 3), strict=True)):
        targets = teachers[index](image)
        terms = [
            compute_feature_loss(
                distillation.projections[index][number](maps[level]),
                targets[level],
                cosine=0.9,
                smooth_l1=0.1,
                per_image=False,
            )
            for number, level in enumerate((1, 3))
        ]
        torch.testing.assert_close(loss, factor * sum(terms))


@pytest.mark.parametrize(
    ("decoder", "counts"),
    [
        ("branched", {0: 1, 1: 1, 2: 1, 3: 2}),
        ("cross_stitch", dict.fromkeys(range(4), 2)),
        ("mtan", dict.fromkeys(range(4), 1)),
        ("pad_net", dict.fromkeys(range(4), 1)),
        ("task_adapters", dict.fromkeys(range(4), 3)),
        ("task_prompts", dict.fromkeys(range(4), 1)),
    ],
)
def test_all_maps_of_all_backbones_are_compared(decoder: str, counts: dict[int, int]) -> None:
    model = make_model(decoder)
    distillation = Distillation(DistillConfig(teachers=("test_vit",)), model, [make_teacher()])
    losses, actual = compute(distillation, model, make_image())
    assert actual == counts
    (loss,) = losses.values()
    loss.backward()  # type: ignore[no-untyped-call]
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    for backbone in backbones:
        gradients = [weight.grad for weight in backbone.parameters()]
        assert any(grad is not None and bool(grad.any()) for grad in gradients)
    assert all(weight.grad is not None for weight in distillation.parameters())
    assert all(weight.grad is None for weight in distillation.teachers[0].parameters())


def test_teacher_sees_the_area_of_the_student_with_its_own_normalization() -> None:
    teacher = make_teacher("test_convnext", (32, 64))
    image = make_image((32, 40), channels=4)
    teacher.rgb = (2, 3, 1)
    net = teacher.backbone
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (net.mean, net.std))
    expected = torch.zeros(2, 3, 32, 64)
    expected[..., :40] = (image[:, [2, 3, 1]] / 255 - mean) / std
    with torch.no_grad():
        maps = teacher.backbone(expected)
    for actual, each in zip(teacher(image, size_divisor=32), maps, strict=True):
        torch.testing.assert_close(actual, each, rtol=0, atol=1e-5)
        assert not actual.requires_grad
    teacher.train()
    torch.testing.assert_close(teacher(image, size_divisor=32)[-1], maps[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "stride", "given", "expected"),
    [
        ((448, 576), 16, False, (448, 576)),
        ((448, 576), 14, False, (392, 504)),  # 28 x 36 patches, as with 16 pixels
        ((448, 448), 14, False, (392, 392)),
        ((448, 448), 14, True, (448, 448)),
        ((500, 500), 14, True, (504, 504)),
        ((448, 576), 8, False, (448, 576)),
        ((480, 624), 32, False, (480, 640)),
    ],
)
def test_size_of_a_teacher(size: Size, stride: int, given: bool, expected: Size) -> None:
    backbone = Backbone("test_vit", pretrained=False)
    backbone.size_divisor = stride
    backbone.feature_info = FeatureInfo((64,) * 4, (stride,) * 4)
    assert choose_size(size, backbone, resized=given) == expected


def step_gradients(folder: Path, *overrides: str) -> tuple[dict[str, Tensor], TrainingRun]:
    """Return the gradients of the first step, before which all weights are equal."""
    run = make_run(folder, VIT, DISTILL, *ONE_STEP, *overrides)
    run.train_step.run(next(TrainBatches(run).iterate(0, 0, 1)))
    assert run.state.distillation is not None
    modules = {"model": run.state.model, "projections": run.state.distillation}
    return {
        f"{part}.{name}": weight.grad
        for part, module in modules.items()
        for name, weight in module.named_parameters()
        if weight.grad is not None
    }, run


def assert_close_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-4 * scale + 1e-7)


def test_steps_of_all_kinds_have_the_same_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradient methods whose weights are 1 add the loss of the teachers to those of the tasks.

    With the simple feature pyramid of `fpn`, no task reads the first three levels.
    """
    expected, run = step_gradients(tmp_path)
    assert any(name.startswith("projections.") for name in expected)
    assert "lr/distill" in get_group_lrs(run.state.optimizer)
    monkeypatch.setattr(GradientBalancer, "compute_weights", lambda self, *_: self._plain_sum())
    cases = {
        "features": ("balancing={name: pcgrad}",),
        "parameters": ("balancing={name: pcgrad, scope: parameters}",),
        "sequential": ("train.sequential_heads=true",),
        "accumulated": ("train.grad_accum_steps=2", "loader.batch_size=2"),
        "accumulated_features": (
            *("train.grad_accum_steps=2", "loader.batch_size=2"),
            "balancing={name: pcgrad}",
        ),
        "checkpointing": ("train.grad_checkpointing=true",),
    }
    for name, overrides in cases.items():
        actual, _ = step_gradients(tmp_path / name, *overrides)
        if name.startswith("accumulated"):  # the heads have batch statistics
            actual, compared = (
                {key: grad for key, grad in grads.items() if key.startswith("projections.")}
                for grads in (actual, expected)
            )
            assert_close_gradients(actual, compared)
        else:
            assert_close_gradients(actual, expected)


def test_graddrop_accepts_features_that_no_task_reads(tmp_path: Path) -> None:
    overrides = ("balancing={name: graddrop}", "train.grad_accum_steps=2", "loader.batch_size=2")
    gradients, _ = step_gradients(tmp_path, *overrides)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())


@pytest.mark.filterwarnings("ignore:train.amp=bf16")
def test_autocast_gives_nearly_the_same_losses(tmp_path: Path) -> None:
    losses = []
    for amp in ("none", "bf16"):
        run = make_run(tmp_path / amp, VIT, DISTILL, *ONE_STEP, f"train.amp={amp}")
        log = run.train_step.run(next(TrainBatches(run).iterate(0, 0, 1)))
        losses.append(float(log["distill/test_vit"]))
        assert log["distill/test_vit"].dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_random_teachers_give_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    (warning,) = warn_about_random_frozen(make_tiny_experiment(DISTILL))
    assert warning.text.startswith("distill.teachers.0: test_vit has random weights")
    assert warning.text in capsys.readouterr().out
    assert not warn_about_random_frozen(make_tiny_experiment("distill={teachers: [test_vit]}"))


def test_weight_0_and_no_section_train_the_same_weights(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / str(number), "train.epochs=1", "data.val_images=2", *overrides)
        for number, overrides in enumerate([(), (DISTILL, "distill.weight=0")])
    ]
    for run in runs:
        train(run)
    assert_equal_runs(tmp_path / "0", tmp_path / "1")
    lines = [line for line in read_log(tmp_path / "1" / "log.jsonl") if line["kind"] == "train"]
    assert all(line["distill/test_vit"] == 0 for line in lines)


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    options = (VIT, DISTILL, "train.epochs=2", "data.train_images=4", "data.val_images=2")
    whole = make_run(tmp_path / "whole", *options)
    train(whole)
    for max_steps in (2, None):
        resumed = make_run(tmp_path / "resumed", *options)
        train(resumed, max_steps)
    assert_equal_runs(tmp_path / "whole", tmp_path / "resumed")
    expected, actual = (
        run.state.distillation.state_dict() for run in (whole, resumed) if run.state.distillation
    )
    assert expected.keys() == {
        f"projections.0.{level}.{part}" for level in range(4) for part in ("weight", "bias")
    }
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    start = make_run(tmp_path / "start", *options).state.distillation
    assert start is not None
    assert not torch.equal(expected["projections.0.3.weight"], start.projections[0][3].weight)
    deployed = load_weights(tmp_path / "whole" / "best.safetensors").tensors
    assert not any("projections" in name or "teacher" in name for name in deployed)
    count = sum(weight.numel() for weight in whole.state.model.parameters())
    assert sum(weight.numel() for weight in make_model().parameters()) == count


def test_configurations_without_it_keep_their_hash() -> None:
    experiment = make_tiny_experiment()
    assert "distill" not in experiment.to_semantic_dict()
    changed = make_tiny_experiment(DISTILL)
    assert changed.compute_config_hash() != experiment.compute_config_hash()
    assert changed.to_single_task("depth").distill is None


def test_summary_lists_teachers_apart_from_the_model() -> None:
    without = summarize(make_tiny_experiment())
    summary = summarize(make_tiny_experiment("distill={teachers: [test_vit]}"))
    assert (summary.total, summary.groups) == (without.total, without.groups)
    cost = summary.teachers["test_vit"]
    assert cost.size == (32, 64)
    assert cost.parameters == sum(
        weight.numel() for weight in Backbone("test_vit", pretrained=False).parameters()
    )
    # two tokens of 64 channels: the number of channels of each level of the student plus a bias
    assert cost.projections == 64 * (32 + 48 + 192 + 96 + 4)
    assert cost.gmac > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("backbone.freeze=all",), "distill: the backbone is frozen"),
        (("train.compile=true",), "train.compile: not supported with distill"),
        (("loader.cache=features",), "loader.cache: features: not supported with distill"),
        (("distill.taps=[4]",), "distill.taps: .* no common level 4; choose from 0, 1, 2, 3"),
        (("distill={teachers: [test_vitt]}",), "distill.teachers.0.name: timm has no model"),
        (("distill={teachers: [test_resnet, {name: vgg11, size: [8, 8]}]}",), "distill.teachers.1"),
    ],
)
def test_what_is_not_supported_is_an_error_of_one_line(
    overrides: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_tiny_experiment(DISTILL, *overrides)
    model = build_model(experiment, build_tasks(experiment))
    with pytest.raises(UserError, match=message) as caught:
        build_distillation(experiment, model, load_weights=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill={teachers: []}", "distill.teachers: "),
        ("distill={teachers: [{weight: 1}]}", "distill.teachers.0.name: "),
        ("distill={teachers: [test_vit], per: pixel}", "distill.per: "),
        ("distill={teachers: [test_vit], loss: {cosine: -1}}", "distill.loss.cosine: "),
    ],
)
def test_wrong_options_are_errors(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_tiny_experiment(override)
