"""MMoE, ML-MMoE, CGC and PLE: equations, dependencies between tasks, and initialization."""

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
DOMINANT_WEIGHT = 1e6
"""Weight of a gate so large that one expert gets all weight; features are not negative here."""


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    torch.manual_seed(0)
    return [make_task("semseg"), make_task("depth")]


def make(cls: type[MixtureOfExperts], tasks: list[Task], **options: Any) -> MixtureOfExperts:
    return cls(lambda: Backbone("test_resnet", pretrained=False), LinearHead, tasks, **options)


@torch.no_grad()
def randomize(decoder: MixtureOfExperts) -> MixtureOfExperts:
    """Set weights as after training: different experts and gates that are not uniform."""
    randomize_batch_norms(decoder)
    for module in decoder.modules():
        if isinstance(module, Gate):
            module.score.weight.normal_(0, 0.5)
    return decoder


@torch.no_grad()
def predict(decoder: MixtureOfExperts | HardSharing, x: Tensor) -> dict[str, Tensor]:
    return decoder.eval()(x).logits


@torch.no_grad()
def perturb(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.add_(1)


# Independent implementations of the equations.


def expert(x: Tensor, module: Expert) -> Tensor:
    reduce, spatial, expand, last = module.body
    hidden = batch_norm(conv(x, reduce[0]), reduce[1]).clamp(min=0)
    hidden = batch_norm(conv(hidden, spatial[0]), spatial[1]).clamp(min=0)
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
    decoder: MixtureOfExperts, reference: Callable[[Tensor, nn.ModuleList], dict[str, Tensor]]
) -> None:
    """Compare with `reference`: (feature of a level, its layers) -> {task: input of its head}."""
    x = make_images()
    with torch.no_grad():
        pairs = zip(decoder.backbone(x), decoder.levels, strict=True)
        levels = [reference(feature, stack.layers) for feature, stack in pairs]
        actual = decoder(x).logits
        assert list(actual) == list(decoder.task_names)
        for task, head in decoder.heads.items():
            expected = head([level[task] for level in levels])
            assert_same(actual[task], expected, SINGLE_TOLERANCE)


@pytest.mark.parametrize("gating", ["pixel", "pooled"])
def test_mmoe(tasks: list[Task], gating: str) -> None:
    def reference(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
        (layer,) = layers
        outputs = [expert(x, layer.experts[f"shared_{i}"]) for i in (1, 2, 3)]
        return {
            task: mixed(x, layer.gates[task], outputs, gating == "pooled")
            for task in ("semseg", "depth")
        }

    check(randomize(make(MMoE, tasks, experts=3, gating=gating, width=8)), reference)


def test_ml_mmoe(tasks: list[Task]) -> None:
    names = ("shared_1", "shared_2", "shared_3")

    def reference(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
        *below, last = layers
        inputs = [x, x, x]
        for layer in below:
            outputs = [expert(g, layer.experts[n]) for g, n in zip(inputs, names, strict=True)]
            inputs = [mixed(x, layer.gates[n], outputs) for n in names]
        outputs = [expert(g, last.experts[n]) for g, n in zip(inputs, names, strict=True)]
        return {task: mixed(x, last.gates[task], outputs) for task in ("semseg", "depth")}

    check(randomize(make(MLMMoE, tasks, experts=3, layers=3)), reference)


def test_cgc(tasks: list[Task]) -> None:
    def reference(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
        (layer,) = layers
        shared = [expert(x, layer.experts[f"shared_{i}"]) for i in (1, 2)]
        out = {}
        for task in ("semseg", "depth"):
            own = [expert(x, layer.experts[f"{task}_{i}"]) for i in (1, 2, 3)]
            out[task] = mixed(x, layer.gates[task], shared + own)
        return out

    check(randomize(make(CGC, tasks, shared_experts=2, task_experts=3)), reference)


@pytest.mark.parametrize("layers", [2, 3])
def test_ple(tasks: list[Task], layers: int) -> None:
    def reference(x: Tensor, layers: nn.ModuleList) -> dict[str, Tensor]:
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

    check(randomize(make(PLE, tasks, layers=layers, shared_experts=2)), reference)


@pytest.mark.parametrize(("many", "one"), [(PLE, CGC), (MLMMoE, MMoE)])
def test_stack_of_one_layer_equals_single_layer_method(
    tasks: list[Task], many: type[MixtureOfExperts], one: type[MixtureOfExperts]
) -> None:
    stack, x = randomize(make(many, tasks, layers=1)), make_images()
    single = make(one, tasks)
    single.load_state_dict(stack.state_dict())
    assert torch.equal(predict(stack, x)["depth"], predict(single, x)["depth"])


# Dependencies between tasks.


def test_cgc_tasks_do_not_depend_on_experts_of_other_tasks(tasks: list[Task]) -> None:
    decoder, x = randomize(make(CGC, tasks)), make_images()
    before = predict(decoder, x)
    perturb(decoder.levels[1].layers[0].experts["depth_1"])
    after = predict(decoder, x)
    assert torch.equal(before["semseg"], after["semseg"])
    assert not torch.allclose(before["depth"], after["depth"])


@pytest.mark.parametrize(
    ("layer", "open_gate", "reached"), [(0, True, True), (0, False, False), (1, True, False)]
)
def test_ple_tasks_depend_on_experts_of_other_tasks_only_through_lower_shared_gates(
    tasks: list[Task], layer: int, open_gate: bool, reached: bool
) -> None:
    decoder, x = randomize(make(PLE, tasks, gating="pooled")), make_images()
    for stack in decoder.levels:
        first = stack.layers[0]
        if not open_gate:
            depth = list(first.routing.gate_experts["shared"]).index("depth_1")
            first.gates["shared"].score.weight.data[depth] = -DOMINANT_WEIGHT
    before = predict(decoder, x)
    perturb(decoder.levels[1].layers[layer].experts["depth_1"])
    after = predict(decoder, x)
    assert torch.equal(before["semseg"], after["semseg"]) is not reached
    assert not torch.allclose(before["depth"], after["depth"])


@pytest.mark.parametrize(("cls", "from_below"), [(PLE, True), (MLMMoE, False)])
def test_upper_gates_read_lower_layer_in_ple_and_backbone_in_ml_mmoe(
    tasks: list[Task], cls: type[MixtureOfExperts], from_below: bool
) -> None:
    decoder, x = randomize(make(cls, tasks)), make_images()
    before = decoder.sharing_weights(x)["layer 2 stage 1"].weights
    perturb(decoder.levels[0].layers[0].experts["shared_1"])
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
def test_task_order_does_not_matter(tasks: list[Task], cls: type[MixtureOfExperts]) -> None:
    decoder, x = randomize(make(cls, tasks)), make_images()
    reverse = make(cls, tasks[::-1])
    reverse.load_state_dict(decoder.state_dict())
    expected, actual = predict(decoder, x), predict(reverse, x)
    assert all(torch.equal(actual[task], expected[task]) for task in ("semseg", "depth"))


def test_loss_has_no_gradient_for_parameters_of_other_tasks(tasks: list[Task]) -> None:
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


# Initialization.


def make_hard_sharing(decoder: MixtureOfExperts, tasks: list[Task], backbone: str) -> HardSharing:
    """Return hard sharing with the same backbone and heads."""
    hard = HardSharing(lambda: Backbone(backbone, pretrained=False), LinearHead, tasks)
    left = hard.load_state_dict(decoder.state_dict(), strict=False)
    assert left.missing_keys == []
    assert all(name.startswith("levels.") for name in left.unexpected_keys)
    return hard


@pytest.mark.parametrize("cls", [CGC, PLE])
@pytest.mark.parametrize("training", [False, True])
def test_single_shared_expert_is_initially_hard_sharing(
    tasks: list[Task], cls: type[MixtureOfExperts], training: bool
) -> None:
    decoder = randomize_backbone(make(cls, tasks, shared_experts=1, task_experts=0)).train(training)
    hard, x = make_hard_sharing(decoder, tasks, "test_resnet").train(training), make_images()
    expected, actual = hard(x).logits, decoder(x).logits
    assert all(torch.equal(actual[task], expected[task]) for task in ("semseg", "depth"))


@torch.no_grad()
def randomize_backbone(decoder: MixtureOfExperts) -> MixtureOfExperts:
    randomize_batch_norms(decoder.backbone)
    return decoder


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("backbone", ["test_convnext", "test_vit"])
def test_all_methods_are_initially_hard_sharing_for_any_gates(
    tasks: list[Task], cls: type[MixtureOfExperts], backbone: str
) -> None:
    """The features of these backbones have both signs."""
    decoder = cls(lambda: Backbone(backbone, pretrained=False), LinearHead, tasks)
    for module in decoder.modules():
        if isinstance(module, Gate):
            nn.init.normal_(module.score.weight)
    hard, x = make_hard_sharing(decoder, tasks, backbone), make_images()
    assert any((feature < 0).any() for feature in decoder.backbone(x))
    expected, actual = predict(hard, x), predict(decoder, x)
    for task in ("semseg", "depth"):
        assert_same(actual[task], expected[task], SINGLE_TOLERANCE)


@pytest.mark.parametrize("cls", FAMILY)
def test_gates_get_gradients_after_one_step(tasks: list[Task], cls: type[MixtureOfExperts]) -> None:
    decoder, x = make(cls, tasks), make_images()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack([each.square().mean() for each in decoder(x).logits.values()]).sum().backward()
        optimizer.step()
    gates = [module for module in decoder.modules() if isinstance(module, Gate)]
    assert all(gate.score.weight.grad.abs().max() > 0 for gate in gates)


# Gates and sharing weights.


@pytest.mark.parametrize(("cls", "num_layers"), [(MMoE, 1), (MLMMoE, 2), (CGC, 1), (PLE, 2)])
def test_gates_sum_to_one(tasks: list[Task], cls: type[MixtureOfExperts], num_layers: int) -> None:
    sharing = randomize(make(cls, tasks)).sharing_weights(make_images())
    layers = {key: each for key, each in sharing.items() if not key.startswith("entropy")}
    assert len(layers) == 4 * num_layers
    for each in layers.values():
        assert each.weights.shape == (len(each.tasks), len(each.sources))
        ones = torch.ones(len(each.tasks), dtype=each.weights.dtype)
        torch.testing.assert_close(each.weights.sum(1), ones)


@torch.no_grad()
def test_sharing_weights_of_ple_are_mean_gates(tasks: list[Task]) -> None:
    decoder, x = randomize(make(PLE, tasks)), make_images()
    sharing = decoder.sharing_weights(x)
    below, last = sharing["layer 1 stage 2"], sharing["layer 2 stage 2"]
    assert below.sources == last.sources == ("shared_1", "semseg_1", "depth_1")
    assert below.tasks == ("semseg", "depth", "shared")
    assert last.tasks == ("semseg", "depth")
    assert last.weights[0, 2] == last.weights[1, 1] == 0
    assert (below.weights[2] > 0).all()
    weight = decoder.levels[1].layers[0].gates["depth"].score.weight[:, :, 0, 0]
    scores = torch.einsum("bchw,ec->ebhw", decoder.backbone(x)[1], weight).exp()
    expected = (scores / scores.sum(0)).mean((1, 2, 3))
    torch.testing.assert_close(below.weights[1, [0, 2]], expected.float())


def test_sharing_weights_contain_entropy_of_each_layer(tasks: list[Task]) -> None:
    sharing = make(PLE, tasks).sharing_weights(make_images())
    layers = {name: each for name, each in sharing.items() if name.startswith("entropy")}
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
    expected = (entropy + (len(gate) > 1)) / 2
    assert compute_mean_entropy(uniform_elsewhere).item() == pytest.approx(expected)


@torch.no_grad()
def test_gates_do_not_depend_on_map_size() -> None:
    x, pixel, pooled = torch.randn(2, 8, 6, 5), Gate(8, 3, "pixel"), Gate(8, 3, "pooled")
    pixel.score.weight.normal_()
    pooled.score.weight.normal_()
    torch.testing.assert_close(pixel(x)[..., :2, 1:4], pixel(x[..., :2, 1:4]))
    torch.testing.assert_close(pooled(x.repeat(1, 1, 3, 2)), pooled(x))
    assert pooled(x).shape == (2, 3, 1, 1)


def test_mix_experts_preserves_dtype_of_features() -> None:
    features = [torch.ones(1, 2, 3, 3, dtype=torch.bfloat16)] * 2
    assert mix_experts(torch.full((1, 2, 1, 1), 0.5), features).dtype == torch.bfloat16


# Load balancing.

FOUR = ("a", "b", "c", "d")


def one_hot(column: int, columns: int = 4) -> Tensor:
    return torch.eye(columns)[column].view(1, columns, 1, 1)


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ({"x": torch.full((2, 4, 3, 3), 0.25), "y": torch.full((2, 4, 3, 3), 0.25)}, 0),
        ({"x": one_hot(0), "y": one_hot(0)}, 3),
        ({"x": one_hot(0), "y": one_hot(1)}, 1),
        ({"x": torch.cat([one_hot(0), one_hot(1)]), "y": torch.cat([one_hot(2), one_hot(3)])}, 0),
    ],
)
def test_load_balancing_loss(gates: dict[str, Tensor], expected: float) -> None:
    routing = ExpertRouting(dict.fromkeys(FOUR, "in"), {"x": FOUR, "y": FOUR})
    assert load_balancing_loss(routing, gates).item() == pytest.approx(expected, abs=1e-6)


def test_gates_over_different_experts_are_balanced_separately() -> None:
    routing = ExpertRouting(dict.fromkeys(FOUR, "in"), {"x": ("a", "b"), "y": ("c", "d")})
    assert load_balancing_loss(
        routing, {"x": one_hot(0, 2), "y": one_hot(1, 2)}
    ).item() == pytest.approx(1)


@pytest.mark.parametrize("cls", FAMILY)
def test_load_balancing_loss_is_added_only_in_training(
    tasks: list[Task], cls: type[MixtureOfExperts]
) -> None:
    decoder = make(cls, tasks, load_balance=0.5)
    assert decoder(make_images()).aux_losses["load_balance"].item() == pytest.approx(0, abs=1e-6)
    assert decoder.eval()(make_images()).aux_losses == {}
    assert make(cls, tasks)(make_images()).aux_losses == {}


def test_load_balancing_loss_is_maximal_if_all_gates_select_one_expert(tasks: list[Task]) -> None:
    decoder = make(MLMMoE, tasks, experts=4, gating="pooled", load_balance=0.5)
    for module in decoder.modules():
        if isinstance(module, Gate):
            module.score.weight.data[2] = DOMINANT_WEIGHT
    assert decoder(make_images()).aux_losses["load_balance"].item() == pytest.approx(0.5 * 3)
