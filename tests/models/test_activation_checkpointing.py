"""Activation checkpointing: less is kept, and every number stays."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from densemtl.backbones.backbone import Backbone
from densemtl.factory import build_model, build_tasks
from densemtl.models.activation_checkpointing import enable_grad_checkpointing, find_blocks
from tests.helpers.exact import assert_all_same
from tests.helpers.experiments import make_tiny_experiment

MODELS = {
    "hard_sharing": "test_resnet",
    "mti_net": "test_convnext",
    "cross_stitch": "test_resnet",
    "mtan": "test_resnet",
    "ple": "test_vit",
}


def model(decoder: str, backbone: str, *overrides: str) -> nn.Module:
    torch.manual_seed(0)
    chosen = f"backbone={{name: {backbone}, pretrained: false}}"
    experiment = make_tiny_experiment(f"decoder.name={decoder}", chosen, *overrides)
    return build_model(experiment, build_tasks(experiment)).double().train()


def step(net: nn.Module) -> tuple[list[Tensor], float]:
    """(predictions, gradients and buffers of a pass; numbers kept for the backward pass)."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    torch.manual_seed(1)
    image = torch.randint(0, 256, (2, 3, 64, 64))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        predictions = net(image)
        total = sum(each.square().mean() for each in predictions.logits.values())
    total.backward()
    gradients = [each.grad for each in net.parameters() if each.grad is not None]
    return [*predictions.logits.values(), *gradients, *net.buffers()], sum(kept.values())


@pytest.mark.parametrize("decoder", MODELS)
def test_every_number_stays_and_less_is_kept(decoder):
    plain = model(decoder, MODELS[decoder])
    thrifty = deepcopy(plain)
    enable_grad_checkpointing(thrifty)
    (wanted, whole), (found, part) = step(plain), step(thrifty)
    assert part < 0.8 * whole
    assert_all_same(found, wanted)


def test_compiled_every_number_stays():
    plain = model("hard_sharing", "test_resnet", "head={name: linear}")
    thrifty = deepcopy(plain)
    enable_grad_checkpointing(thrifty)
    torch._dynamo.reset()
    thrifty.compile(backend="aot_eager", fullgraph=True)
    (wanted, whole), (found, part) = step(plain), step(thrifty)
    assert part < 0.8 * whole
    assert_all_same(found, wanted)


def test_no_block_holds_another_or_a_backbone():
    for decoder, backbone in MODELS.items():
        found = list(find_blocks(model(decoder, backbone)))
        inside = [each for block in found for each in block.modules() if each is not block]
        assert found
        assert not {*map(id, inside)} & {*map(id, found)}
        assert not any(isinstance(each, Backbone) for each in inside + found)


def test_a_copy_runs_its_own_blocks():
    net = model("hard_sharing", "test_resnet")
    enable_grad_checkpointing(net)
    copied = deepcopy(net)
    with torch.no_grad():
        for each in net.parameters():
            each.fill_(torch.nan)
    final = copied(torch.zeros(2, 3, 64, 64)).logits
    assert all(each.isfinite().all() for each in final.values())
