"""torch.compile traces a training step's forward pass as one graph, without a break."""

from __future__ import annotations

import pytest
import torch
from experiments import tiny

from densemtl.build import build_model, build_tasks


@pytest.mark.parametrize("decoder", ["hard_sharing", "cross_stitch", "mtan"])
def test_the_forward_pass_is_one_graph(decoder):
    experiment = tiny(f"decoder.name={decoder}")
    torch.manual_seed(0)
    model = build_model(experiment, build_tasks(experiment)).eval()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    wanted = model(image).final
    torch._dynamo.reset()
    found = torch.compile(model, backend="eager", fullgraph=True)(image).final
    for task, logits in wanted.items():
        torch.testing.assert_close(found[task], logits)
