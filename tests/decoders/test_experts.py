"""MMoE, ML-MMoE, CGC and PLE: their equations, who depends on whom, and what they start as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.decoders.cgc import CGC
from densemtl.decoders.gated_experts import MixtureOfExperts
from densemtl.decoders.hard_sharing import HardSharing
from densemtl.decoders.ml_mmoe import MLMMoE
from densemtl.decoders.mmoe import MMoE
from densemtl.decoders.ple import PLE
from densemtl.heads.linear import LinearHead
from densemtl.layers.mixture_of_experts import (
    Expert,
    ExpertRouting,
    Gate,
    compute_mean_entropy,
    load_balancing_loss,
    mix_experts,
)
from densemtl.tasks.base import Task
from tests.helpers.decoder_cases import batch_norm, conv, make_images, randomize_batch_norms
from tests.helpers.exact import SINGLE_TOLERANCE, assert_same

pytestmark = pytest.mark.usefixtures("double_precision")

FAMILY = [MMoE, MLMMoE, CGC, PLE]
COLLAPSED = 1e6
"""A gate's weight so large that one choice has all: features are never negative here."""


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task("semseg"), make_task("depth")]


def make(cls: type[MixtureOfExperts], tasks: list[Task], **options: Any) -> MixtureOfExperts:
    return cls(lambda: Backbone("test_resnet", pretrained=False), LinearHead, tasks, **options)


@torch.no_grad()
def trained(decoder: MixtureOfExperts) -> MixtureOfExperts:
    """With weights as they could be after training: experts that differ, gates that choose."""
    randomize_batch_norms(decoder)
    for module in decoder.modules():
        if isinstance(module, Gate):
            module.score.weight.normal_(0, 0.5)
    return decoder


@torch.no_grad()
def predict(decoder: MixtureOfExperts | HardSharing, x: Tensor) -> dict[str, Tensor]:
    return decoder.eval()(x).logits


@torch.no_grad()
def disturb(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.add_(1)


# The equations, restated.


def expert(x: Tensor, module: Expert) -> Tensor:
    reduce, look, expand, last = module.body
    hidden = batch_norm(conv(x, reduce[0]), reduce[1]).clamp(min=0)
    hidden = batch_norm(conv(hidden, look[0]), look[1]).clamp(min=0)
    return x + batch_norm(conv(hidden, expand), last)


def mixed(selector: Tensor, gate: Gate, outputs: list[Tensor], pooled: bool = False) -> Tensor:
    if pooled:
        selector = selector.flatten(2).mean(2)[:, :, None, None]
    scores = torch.einsum("bchw,ec->ebhw", selector, gate.score.weight[:, :, 0, 0]).exp()
    total = torch.zeros_like(outputs[0])
    for score, output in zip(scores, outputs, strict=True):
        total += (score / scores.sum(0))[:, None] * output
    return total


def check(
    decoder: MixtureOfExperts, restated: Callable[[Tensor, nn.ModuleList], dict[str, Tensor]]
) -> None:
    """`restated`: (a level's feature, its layers) -> {task: what its head reads}."""
    x = make_images()
    with torch.no_grad():
        pairs = zip(decoder.backbone(x), decoder.levels, strict=True)
        levels = [restated(feature, stack.layers) for feature, stack in pairs]
        made = decoder(x).logits
        assert list(made) == list(decoder.task_names)
        for task, head in decoder.heads.items():
            wanted = head([level[task] for level in levels])
            assert_same(made[task], wanted, SINGLE_TOLERANCE)


@pytest.mark.parametrize("gating", ["pixel", "pooled"])
def test_mmoe(tasks: list[Task], gating: str) -> None:
    def restated(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
        (layer,) = layers
        outputs = [expert(x, layer.experts[f"shared_{i}"]) for i in (1, 2, 3)]
        return {
            task: mixed(x, layer.gates[task], outputs, gating == "pooled")
            for task in ("semseg", "depth")
        }

    check(trained(make(MMoE, tasks, experts=3, gating=gating, width=8)), restated)


def test_ml_mmoe(tasks: list[Task]) -> None:
    names = ("shared_1", "shared_2", "shared_3")

    def restated(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
        *below, last = layers
        given = [x, x, x]
        for layer in below:
            outputs = [expert(g, layer.experts[n]) for g, n in zip(given, names, strict=True)]
            given = [mixed(x, layer.gates[n], outputs) for n in names]
        outputs = [expert(g, last.experts[n]) for g, n in zip(given, names, strict=True)]
        return {task: mixed(x, last.gates[task], outputs) for task in ("semseg", "depth")}

    check(trained(make(MLMMoE, tasks, experts=3, layers=3)), restated)


def test_cgc(tasks: list[Task]) -> None:
    def restated(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
        (layer,) = layers
        shared = [expert(x, layer.experts[f"shared_{i}"]) for i in (1, 2)]
        out = {}
        for task in ("semseg", "depth"):
            own = [expert(x, layer.experts[f"{task}_{i}"]) for i in (1, 2, 3)]
            out[task] = mixed(x, layer.gates[task], shared + own)
        return out

    check(trained(make(CGC, tasks, shared_experts=2, task_experts=3)), restated)


@pytest.mark.parametrize("layers", [2, 3])
def test_ple(tasks: list[Task], layers: int) -> None:
    def restated(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
        shared, semseg, depth = x, x, x
        for index, layer in enumerate(layers):
            common = [expert(shared, layer.experts[f"shared_{i}"]) for i in (1, 2)]
            of_semseg, of_depth = (
                expert(semseg, layer.experts["semseg_1"]),
                expert(depth, layer.experts["depth_1"]),
            )
            if index < len(layers) - 1:
                every = [of_depth, of_semseg, *common]
                shared = mixed(shared, layer.gates["shared"], every)
            semseg = mixed(semseg, layer.gates["semseg"], [*common, of_semseg])
            depth = mixed(depth, layer.gates["depth"], [*common, of_depth])
        return {"semseg": semseg, "depth": depth}

    check(trained(make(PLE, tasks, layers=layers, shared_experts=2)), restated)


@pytest.mark.parametrize(("many", "one"), [(PLE, CGC), (MLMMoE, MMoE)])
def test_a_stack_of_one_layer(
    tasks: list[Task], many: type[MixtureOfExperts], one: type[MixtureOfExperts]
) -> None:
    stack, x = trained(make(many, tasks, layers=1)), make_images()
    single = make(one, tasks)
    single.load_state_dict(stack.state_dict())
    assert torch.equal(predict(stack, x)["depth"], predict(single, x)["depth"])


# Who depends on whom.


def test_in_cgc_no_task_sees_another_s_experts(tasks: list[Task]) -> None:
    decoder, x = trained(make(CGC, tasks)), make_images()
    before = predict(decoder, x)
    disturb(decoder.levels[1].layers[0].experts["depth_1"])
    after = predict(decoder, x)
    assert torch.equal(before["semseg"], after["semseg"])
    assert not torch.allclose(before["depth"], after["depth"])


@pytest.mark.parametrize(
    ("layer", "open_gate", "reached"), [(0, True, True), (0, False, False), (1, True, False)]
)
def test_in_ple_another_s_experts_are_seen_through_the_shared_gate_below(
    tasks: list[Task], layer: int, open_gate: bool, reached: bool
) -> None:
    decoder, x = trained(make(PLE, tasks, gating="pooled")), make_images()
    for stack in decoder.levels:
        first = stack.layers[0]
        if not open_gate:
            depth = list(first.routing.gate_experts["shared"]).index("depth_1")
            first.gates["shared"].score.weight.data[depth] = -COLLAPSED
    before = predict(decoder, x)
    disturb(decoder.levels[1].layers[layer].experts["depth_1"])
    after = predict(decoder, x)
    assert torch.equal(before["semseg"], after["semseg"]) is not reached
    assert not torch.allclose(before["depth"], after["depth"])


@pytest.mark.parametrize(("cls", "from_below"), [(PLE, True), (MLMMoE, False)])
def test_what_upper_gates_look_at(
    tasks: list[Task], cls: type[MixtureOfExperts], from_below: bool
) -> None:
    decoder, x = trained(make(cls, tasks)), make_images()
    before = decoder.sharing_weights(x)["layer 2 stage 1"].weights
    disturb(decoder.levels[0].layers[0].experts["shared_1"])
    after = decoder.sharing_weights(x)["layer 2 stage 1"].weights
    assert torch.allclose(before, after) is not from_below


@pytest.mark.parametrize("cls", FAMILY)
def test_every_expert_runs_once(tasks: list[Task], cls: type[MixtureOfExperts]) -> None:
    decoder, runs = make(cls, tasks), []
    experts = [module for module in decoder.modules() if isinstance(module, Expert)]
    for module in experts:
        module.register_forward_hook(lambda module, *_: runs.append(id(module)))
    decoder(make_images())
    assert sorted(runs) == sorted(id(module) for module in experts)


@pytest.mark.parametrize("cls", FAMILY)
def test_the_order_of_tasks_does_not_matter(tasks: list[Task], cls: type[MixtureOfExperts]) -> None:
    decoder, x = trained(make(cls, tasks)), make_images()
    reverse = make(cls, tasks[::-1])
    reverse.load_state_dict(decoder.state_dict())
    wanted, made = predict(decoder, x), predict(reverse, x)
    assert all(torch.equal(made[task], wanted[task]) for task in ("semseg", "depth"))


def test_a_task_s_loss_reaches_no_parameter_of_another(tasks: list[Task]) -> None:
    decoder = make(CGC, tasks)
    decoder(make_images()).logits["depth"].sum().backward()
    groups = decoder.parameter_groups()
    reached = {name: [p.grad is not None for p in group] for name, group in groups.items()}
    assert not any(reached["semseg"])
    assert all(reached["shared"])
    assert all(reached["depth"])
    own = sum(
        p.numel()
        for stack in decoder.levels
        for p in stack.layers[0].experts["depth_1"].parameters()
    )
    head = sum(p.numel() for p in decoder.heads["depth"].parameters())
    assert sum(p.numel() for p in groups["depth"]) == own + head


# What they start as.


def hard_sharing_of(decoder: MixtureOfExperts, tasks: list[Task], backbone: str) -> HardSharing:
    """Hard sharing with the same backbone and heads."""
    hard = HardSharing(lambda: Backbone(backbone, pretrained=False), LinearHead, tasks)
    left = hard.load_state_dict(decoder.state_dict(), strict=False)
    assert left.missing_keys == []
    assert all(name.startswith("levels.") for name in left.unexpected_keys)
    return hard


@pytest.mark.parametrize("cls", [CGC, PLE])
@pytest.mark.parametrize("training", [False, True])
def test_one_shared_expert_alone_starts_as_hard_sharing(
    tasks: list[Task], cls: type[MixtureOfExperts], training: bool
) -> None:
    decoder = lively_backbone(make(cls, tasks, shared_experts=1, task_experts=0)).train(training)
    hard, x = hard_sharing_of(decoder, tasks, "test_resnet").train(training), make_images()
    wanted, made = hard(x).logits, decoder(x).logits
    assert all(torch.equal(made[task], wanted[task]) for task in ("semseg", "depth"))


@torch.no_grad()
def lively_backbone(decoder: MixtureOfExperts) -> MixtureOfExperts:
    randomize_batch_norms(decoder.backbone)
    return decoder


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit"])
def test_all_start_as_hard_sharing_whatever_their_gates(
    tasks: list[Task], cls: type[MixtureOfExperts], backbone: str
) -> None:
    """Features of these backbones are of both signs."""
    decoder = cls(lambda: Backbone(backbone, pretrained=False), LinearHead, tasks)
    for module in decoder.modules():
        if isinstance(module, Gate):
            nn.init.normal_(module.score.weight)
    hard, x = hard_sharing_of(decoder, tasks, backbone), make_images()
    assert any((feature < 0).any() for feature in decoder.backbone(x))
    wanted, made = predict(hard, x), predict(decoder, x)
    for task in ("semseg", "depth"):
        assert_same(made[task], wanted[task], SINGLE_TOLERANCE)


@pytest.mark.parametrize("cls", FAMILY)
def test_after_one_step_gates_have_something_to_choose(
    tasks: list[Task], cls: type[MixtureOfExperts]
) -> None:
    decoder, x = make(cls, tasks), make_images()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack([each.square().mean() for each in decoder(x).logits.values()]).sum().backward()
        optimizer.step()
    gates = [module for module in decoder.modules() if isinstance(module, Gate)]
    assert all(gate.score.weight.grad.abs().max() > 0 for gate in gates)


# Gates, and what is told of them.


@pytest.mark.parametrize(("cls", "places"), [(MMoE, 1), (MLMMoE, 2), (CGC, 1), (PLE, 2)])
def test_gates_sum_to_one(tasks: list[Task], cls: type[MixtureOfExperts], places: int) -> None:
    sharing = trained(make(cls, tasks)).sharing_weights(make_images())
    layers = {place: each for place, each in sharing.items() if not place.startswith("entropy")}
    assert len(layers) == 4 * places
    for each in layers.values():
        assert each.weights.shape == (len(each.tasks), len(each.sources))
        ones = torch.ones(len(each.tasks), dtype=each.weights.dtype)
        torch.testing.assert_close(each.weights.sum(1), ones)


@torch.no_grad()
def test_the_shares_of_ple(tasks: list[Task]) -> None:
    decoder, x = trained(make(PLE, tasks)), make_images()
    told = decoder.sharing_weights(x)
    below, last = told["layer 1 stage 2"], told["layer 2 stage 2"]
    assert below.sources == last.sources == ("shared_1", "semseg_1", "depth_1")
    assert below.tasks == ("semseg", "depth", "shared")
    assert last.tasks == ("semseg", "depth")
    assert last.weights[0, 2] == last.weights[1, 1] == 0
    assert (below.weights[2] > 0).all()
    weight = decoder.levels[1].layers[0].gates["depth"].score.weight[:, :, 0, 0]
    scores = torch.einsum("bchw,ec->ebhw", decoder.backbone(x)[1], weight).exp()
    wanted = (scores / scores.sum(0)).mean((1, 2, 3))
    torch.testing.assert_close(below.weights[1, [0, 2]], wanted.float())


def test_entropy_is_told_for_each_layer(tasks: list[Task]) -> None:
    told = make(PLE, tasks).sharing_weights(make_images())
    layers = {name: each for name, each in told.items() if name.startswith("entropy")}
    assert list(layers) == ["entropy layer 1", "entropy layer 2"]
    for each in layers.values():
        assert each.sources == ("entropy",)
        torch.testing.assert_close(each.weights, torch.ones_like(each.weights))
        assert each.weights.shape == (len(each.tasks), 1)


@pytest.mark.parametrize(
    ("gate", "entropy"),
    [
        ([0.25, 0.25, 0.25, 0.25], 1.0),
        ([0.5, 0.5, 0.0, 0.0], 0.5),
        ([0.0, 1.0, 0.0, 0.0], 0.0),
        ([1.0], 0.0),
    ],
)
def test_entropy(gate: list[float], entropy: float) -> None:
    uniform_elsewhere = torch.full((1, len(gate), 1, 2), 1 / len(gate))
    uniform_elsewhere[0, :, 0, 0] = torch.tensor(gate)
    wanted = (entropy + (len(gate) > 1)) / 2
    assert compute_mean_entropy(uniform_elsewhere).item() == pytest.approx(wanted)


@torch.no_grad()
def test_gates_do_not_depend_on_the_size() -> None:
    x, pixel, pooled = torch.randn(2, 8, 6, 5), Gate(8, 3, "pixel"), Gate(8, 3, "pooled")
    pixel.score.weight.normal_()
    pooled.score.weight.normal_()
    torch.testing.assert_close(pixel(x)[..., :2, 1:4], pixel(x[..., :2, 1:4]))
    torch.testing.assert_close(pooled(x.repeat(1, 1, 3, 2)), pooled(x))
    assert pooled(x).shape == (2, 3, 1, 1)


def test_a_mixture_keeps_the_features_precision() -> None:
    features = [torch.ones(1, 2, 3, 3, dtype=torch.bfloat16)] * 2
    assert mix_experts(torch.full((1, 2, 1, 1), 0.5), features).dtype == torch.bfloat16


# The balance of experts.

FOUR = ("a", "b", "c", "d")


def one_hot(column: int, columns: int = 4) -> Tensor:
    return torch.eye(columns)[column].view(1, columns, 1, 1)


@pytest.mark.parametrize(
    ("gates", "wanted"),
    [
        ({"x": torch.full((2, 4, 3, 3), 0.25), "y": torch.full((2, 4, 3, 3), 0.25)}, 0),
        ({"x": one_hot(0), "y": one_hot(0)}, 3),
        ({"x": one_hot(0), "y": one_hot(1)}, 1),
        ({"x": torch.cat([one_hot(0), one_hot(1)]), "y": torch.cat([one_hot(2), one_hot(3)])}, 0),
    ],
)
def test_imbalance(gates: dict[str, Tensor], wanted: float) -> None:
    wiring = ExpertRouting(dict.fromkeys(FOUR, "in"), {"x": FOUR, "y": FOUR})
    assert load_balancing_loss(wiring, gates).item() == pytest.approx(wanted, abs=1e-6)


def test_gates_with_different_choices_are_balanced_apart() -> None:
    wiring = ExpertRouting(dict.fromkeys(FOUR, "in"), {"x": ("a", "b"), "y": ("c", "d")})
    assert load_balancing_loss(
        wiring, {"x": one_hot(0, 2), "y": one_hot(1, 2)}
    ).item() == pytest.approx(1)


@pytest.mark.parametrize("cls", FAMILY)
def test_load_balance_is_a_term_of_training_alone(
    tasks: list[Task], cls: type[MixtureOfExperts]
) -> None:
    decoder = make(cls, tasks, load_balance=0.5)
    assert decoder(make_images()).aux_losses["load_balance"].item() == pytest.approx(0, abs=1e-6)
    assert decoder.eval()(make_images()).aux_losses == {}
    assert make(cls, tasks)(make_images()).aux_losses == {}


def test_load_balance_of_gates_that_all_choose_one_expert(tasks: list[Task]) -> None:
    decoder = make(MLMMoE, tasks, experts=4, gating="pooled", load_balance=0.5)
    for module in decoder.modules():
        if isinstance(module, Gate):
            module.score.weight.data[2] = COLLAPSED
    assert decoder(make_images()).aux_losses["load_balance"].item() == pytest.approx(0.5 * 3)
