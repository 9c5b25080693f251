"""torch.compile traces the forward pass of a training step as one graph without breaks."""

from __future__ import annotations

import pytest
import torch

from densemtl import registry
from densemtl.factory import build_model, build_tasks
from tests.helpers.experiments import make_tiny_experiment

SMALL = {
    "hard_sharing": [],
    "single_task": ["tasks=[depth]"],
    "mmoe": ["decoder.experts=2", "head={name: linear}"],
    "invpt": [
        "decoder={name: invpt, stages: 2, width: 32, initial_width: 16}",
        "head={name: linear}",
    ],
    "mlore": [
        "decoder={name: mlore, width: 16, experts: 3, top_k: 2, min_rank: 2, task_rank: 2}",
        "head={name: linear}",
    ],
    "mixture": [
        "backbone={name: test_vit, pretrained: false}",
        "decoder={name: mixture, streams: 1}",
        "head={name: linear}",
    ],
    "mtmamba": [
        "decoder={name: mtmamba, states: 2, finest_stride: 8}",
        "head={name: linear}",
    ],
    "task_adapters": [
        "backbone={name: swin_tiny_patch4_window7_224, pretrained: false}",
        "backbone.options={embed_dim: 24, window_size: 4}",
        "backbone.adapters={kind: dora, rank: 2, shrink: {}}",
        "head={name: linear}",
    ],
    "task_prompts": [
        "backbone={name: test_vit, pretrained: false}",
        "decoder={name: task_prompts, level_width: 8, width: 16}",
        "head={name: linear}",
    ],
    "ml_mmoe": ["decoder.experts=2", "head={name: linear}"],
}
"""{decoder: overrides}. The FPN head is compiled with some decoders only, to save time."""

SEVERAL_GRAPHS = {"mixture"}
"""Decoders that run the stages of a ViT, whose stem is run by a forward pass that is stopped."""


@pytest.mark.parametrize("decoder", registry.list_names("decoders"))
def test_forward_pass_compiles_to_one_graph(decoder):
    options = SMALL.get(decoder, ["head={name: linear}"])
    experiment = make_tiny_experiment(f"decoder.name={decoder}", *options)
    torch.manual_seed(0)
    model = build_model(experiment, build_tasks(experiment)).train()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.manual_seed(1)  # of the noise of routers
    expected = model(image, full_size=False).logits
    torch._dynamo.reset()
    torch.manual_seed(1)
    fullgraph = decoder not in SEVERAL_GRAPHS
    compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
    actual = compiled(image, full_size=False).logits
    for task, logits in expected.items():
        torch.testing.assert_close(actual[task], logits)
