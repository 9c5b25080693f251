"""Activation checkpointing saves memory and does not change any result."""

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
    """Run forward and backward passes.

    Returns predictions, gradients and buffers, and the number of elements saved for the backward
    pass.
    """
    sizes: dict[int, int] = {}

    def save_size(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    torch.manual_seed(1)
    image = torch.randint(0, 256, (2, 3, 64, 64))
    with saved_tensors_hooks(save_size, lambda tensor: tensor):
        predictions = net(image)
        total = sum(each.square().mean() for each in predictions.logits.values())
    total.backward()
    gradients = [each.grad for each in net.parameters() if each.grad is not None]
    return [*predictions.logits.values(), *gradients, *net.buffers()], sum(sizes.values())


@pytest.mark.parametrize("decoder", MODELS)
def test_outputs_and_gradients_are_unchanged_and_memory_is_smaller(decoder):
    plain = model(decoder, MODELS[decoder])
    checkpointed = deepcopy(plain)
    enable_grad_checkpointing(checkpointed)
    (expected, plain_size), (actual, checkpointed_size) = step(plain), step(checkpointed)
    assert checkpointed_size < 0.8 * plain_size
    assert_all_same(actual, expected)


def test_outputs_and_gradients_are_unchanged_in_a_compiled_model():
    plain = model("hard_sharing", "test_resnet", "head={name: linear}")
    checkpointed = deepcopy(plain)
    enable_grad_checkpointing(checkpointed)
    torch._dynamo.reset()
    checkpointed.compile(backend="aot_eager", fullgraph=True)
    (expected, plain_size), (actual, checkpointed_size) = step(plain), step(checkpointed)
    assert checkpointed_size < 0.8 * plain_size
    assert_all_same(actual, expected)


def test_blocks_contain_no_other_blocks_or_backbones():
    for decoder, backbone in MODELS.items():
        blocks = list(find_blocks(model(decoder, backbone)))
        inside = [each for block in blocks for each in block.modules() if each is not block]
        assert blocks
        assert not {*map(id, inside)} & {*map(id, blocks)}
        assert not any(isinstance(each, Backbone) for each in inside + blocks)


def test_copied_model_runs_its_own_blocks():
    net = model("hard_sharing", "test_resnet")
    enable_grad_checkpointing(net)
    copy = deepcopy(net)
    with torch.no_grad():
        for each in net.parameters():
            each.fill_(torch.nan)
    final = copy(torch.zeros(2, 3, 64, 64)).logits
    assert all(each.isfinite().all() for each in final.values())
