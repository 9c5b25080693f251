"""Losses of tasks, with final and auxiliary predictions, and auxiliary losses of the decoder."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from densemtl.errors import ModelError
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import IGNORE_INDEX, Predictions


@pytest.fixture
def tasks(make_task):
    return [make_task("semseg"), make_task("depth")]


@pytest.fixture
def targets():
    torch.manual_seed(0)
    return {"semseg": torch.randint(0, 3, (2, 8, 8)).byte(), "depth": torch.rand(2, 1, 8, 8) + 1}


def logits(size: int = 8) -> dict[str, torch.Tensor]:
    torch.manual_seed(size)
    return {"semseg": torch.randn(2, 3, size, size), "depth": torch.randn(2, 1, size, size)}


def test_auxiliary_predictions_add_their_losses(tasks, targets):
    final, coarse, fewer = logits(), logits(4), {"depth": logits(2)["depth"]}
    losses = compute_task_losses(tasks, Predictions(final, [coarse, fewer]), targets)

    def at_full_size(output, name):
        return F.interpolate(output[name], size=(8, 8), mode="bilinear", align_corners=False)

    depth = [final["depth"], at_full_size(coarse, "depth"), at_full_size(fewer, "depth")]
    expected = sum((each - targets["depth"]).abs().mean() for each in depth)
    assert losses.tasks["depth"].item() == pytest.approx(expected.item(), rel=1e-6)
    classes = [final["semseg"], at_full_size(coarse, "semseg")]
    expected = sum(F.cross_entropy(each, targets["semseg"].long()) for each in classes)
    assert losses.tasks["semseg"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert list(losses.tasks) == ["semseg", "depth"]


def test_other_predictions_are_unused_and_auxiliary_losses_are_returned(tasks, targets):
    aux_loss = torch.tensor(0.25)
    predictions = Predictions(
        logits() | {"other": torch.full((2, 1, 8, 8), torch.nan)}, aux_losses={"load": aux_loss}
    )
    losses = compute_task_losses(tasks[:1], predictions, {"semseg": targets["semseg"]})
    assert list(losses.tasks) == ["semseg"]
    assert losses.aux_losses == {"load": aux_loss}
    assert torch.isfinite(losses.tasks["semseg"])


def test_auxiliary_prediction_without_final_prediction(tasks, targets):
    final = logits()
    losses = compute_task_losses(tasks, Predictions({"semseg": final["semseg"]}, [final]), targets)
    assert losses.tasks["depth"].item() == pytest.approx(
        (final["depth"] - targets["depth"]).abs().mean().item(), rel=1e-6
    )


def test_missing_prediction_raises_an_error(tasks, targets):
    with pytest.raises(ModelError, match="no prediction for task 'depth', only for: semseg"):
        compute_task_losses(tasks, Predictions({"semseg": logits()["semseg"]}), targets)


def test_loss_of_a_batch_without_labels_is_zero_and_differentiable(any_task):
    prediction = torch.randn(2, any_task.channels, 4, 4, requires_grad=True)
    shape = (2, 4, 4) if any_task.make_empty_label((1, 1)).dtype == "uint8" else prediction.shape
    target = (
        torch.full(shape, IGNORE_INDEX, dtype=torch.uint8)
        if len(shape) == 3
        else torch.full(shape, torch.nan)
    )
    losses = compute_task_losses(
        [any_task], Predictions({any_task.name: prediction}), {any_task.name: target}
    )
    loss = losses.tasks[any_task.name]
    assert loss == 0
    loss.backward()
    assert (prediction.grad == 0).all()
