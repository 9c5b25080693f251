"""Compiled models with several backward passes per forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partialmethod
from typing import Any

import pytest
import torch
import torch._functorch.config
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import densemtl.runs.training_run as training_run
from densemtl.config.sections import TrainConfig
from densemtl.engine.train_state import make_ema
from densemtl.factory import build_balancer, build_model, build_tasks
from densemtl.runtime.compilation import compile_model
from densemtl.runtime.execution import ExecutionConfig
from tests.helpers.experiments import make_tiny_experiment

_ORIGINAL_COMPILE = nn.Module.compile
_COMPILED = TrainConfig(ema_decay=0.9, compile=True)


@pytest.fixture(autouse=True)
def _compile_without_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trace forward and backward passes as usual, but do not generate code for them."""
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: original(module, backend="aot_eager"))
    torch._dynamo.reset()
    with torch._functorch.config.patch(donated_buffer=True):
        yield
    torch._dynamo.reset()


class Network(nn.Module):
    """Network with one output per task."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.heads = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        outputs: Tensor = self.heads(self.shared(image).sigmoid()).sigmoid()
        return outputs


def compute_task_gradients(model: nn.Module) -> list[Tensor]:
    """Return the gradient of the sum of the outputs, and then those of each output."""
    image, weights = torch.linspace(-1, 1, 12).view(3, 4), next(model.parameters())
    total = torch.autograd.grad(model(image).sum(), weights)
    losses = model(image).sum(dim=0)
    of_tasks = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
    return [gradient for (gradient,) in (total, *of_tasks)]


def test_task_gradients_of_a_compiled_model_equal_those_of_the_model() -> None:
    model = Network()
    expected = compute_task_gradients(model)
    compile_model(model, keeps_graph=False)
    with pytest.raises(RuntimeError, match="donated"):
        compute_task_gradients(model)
    torch._dynamo.reset()
    compile_model(model, keeps_graph=True)
    torch.testing.assert_close(compute_task_gradients(model), expected)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["balancing={name: uncertainty}"], False),
        (["balancing={name: uncertainty}", "train.grad_similarity_every=1"], True),
        (["balancing={name: mgda}"], True),
        (["balancing={name: gradnorm}"], True),
    ],
)
def test_graphs_are_kept_where_tasks_have_gradients_of_their_own(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], expected: bool
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(training_run, "compile_model", lambda _, **options: calls.append(options))
    experiment = make_tiny_experiment("train.compile=true", *overrides)
    tasks = build_tasks(experiment)
    model, balancer = build_model(experiment, tasks), build_balancer(experiment, tasks)
    execution = ExecutionConfig(torch.device("cpu"))
    training_run._place_model(model, experiment.train, execution, balancer)
    assert calls == [{"keeps_graph": expected}]


def test_moving_average_of_a_compiled_model_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounter()
    monkeypatch.setattr(nn.Module, "compile", partialmethod(_ORIGINAL_COMPILE, backend=counter))
    model, image = Network(), torch.linspace(-1, 1, 12).view(3, 4)
    compile_model(model, keeps_graph=False)
    for config, graphs in ((TrainConfig(ema_decay=0.9), 0), (_COMPILED, 1)):
        average = make_ema(model, config)
        assert average is not None
        with torch.inference_mode():
            outputs = [average.module(image) for _ in range(2)]
        assert counter.frame_count == graphs
        torch.testing.assert_close(outputs, [model.eval()._call_impl(image)] * 2)
