"""torch.compile traces a training step's forward pass as one graph, without a break."""

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
    "ml_mmoe": ["decoder.experts=2", "head={name: linear}"],
}
"""Overrides; what is traced in one of them with the FPN head need not be in all."""


@pytest.mark.parametrize("decoder", registry.list_names("decoders"))
def test_the_forward_pass_is_one_graph(decoder):
    options = SMALL.get(decoder, ["head={name: linear}"])
    experiment = make_tiny_experiment(f"decoder.name={decoder}", *options)
    torch.manual_seed(0)
    model = build_model(experiment, build_tasks(experiment)).train()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    wanted = model(image, full_size=False).logits
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found = compiled(image, full_size=False).logits
    for task, logits in wanted.items():
        torch.testing.assert_close(found[task], logits)
