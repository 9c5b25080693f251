"""maxF with the second sigmoid of InvPT and TaskPrompter, compared with loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from densemtl.factory import build_tasks
from densemtl.metrics.max_f_published import MaxFPublished
from densemtl.tasks.added_metrics import metric_errors
from densemtl.types import IGNORE_INDEX
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.protocols import saliency

EFFECTIVE_THRESHOLDS = [0.0] + [math.log(t / (1 - t)) for t in (0.55, 0.6, 0.65, 0.7)]


def score(*batches: tuple[Tensor, Tensor]) -> float:
    metric = MaxFPublished()
    for batch in batches:
        metric.update(*batch)
    return metric.compute_dict()["maxF_published"]


def draw(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(3, 6, 5, generator=generator) < 0.3).to(torch.uint8)
    noise = torch.rand(target.shape, generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE_INDEX
    return (0.6 * noise + 0.4 * (target == 1) * noise.flip(0)), target


def f_at(pairs: list[tuple[float, int]], threshold: float) -> float:
    """F with beta² = .3 of (score, label) pairs at an inclusive threshold."""
    found = [label for value, label in pairs if value >= threshold]
    positives = sum(label for _, label in pairs)
    if not sum(found):
        return 0.0
    precision, recall = sum(found) / len(found), sum(found) / positives
    return 130 * precision * recall / (0.3 * precision + recall)


def list_pixels(prediction: Tensor, target: Tensor) -> list[tuple[float, int]]:
    both = zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True)
    return [(value, label) for value, label in both if label != IGNORE_INDEX]


@pytest.mark.parametrize("seed", range(4))
def test_score_equals_a_loop_with_two_sigmoids(seed: int) -> None:
    logits = torch.logit(draw(seed)[0], 1e-6)
    target = draw(seed)[1]
    twice = [
        (1 / (1 + math.exp(-1 / (1 + math.exp(-logit)))), label)
        for logit, label in list_pixels(logits, target)
    ]
    expected = max(f_at(twice, percent / 100) for percent in range(5, 100, 5))
    assert score((logits.sigmoid(), target)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_only_five_thresholds_of_the_probability_count(seed: int) -> None:
    """They are 0, .20, .41, .62 and .85."""
    assert pytest.approx([0, 0.20, 0.41, 0.62, 0.85], abs=0.006) == EFFECTIVE_THRESHOLDS
    batch = draw(seed)
    expected = max(f_at(list_pixels(*batch), threshold) for threshold in EFFECTIVE_THRESHOLDS)
    assert score(batch) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("low", "high", "separated"), [(0.86, 1.0, False), (0.82, 0.86, True)])
def test_probabilities_above_the_last_threshold_are_equal(
    low: float, high: float, separated: bool
) -> None:
    batch = (torch.tensor([[[low, high]]]), torch.tensor([[[0, 1]]]))
    metric = saliency("modern")
    metric.update(*batch)
    assert metric.compute_dict()["maxF"] == 100
    assert (score(batch) == 100) is separated


def test_batches_are_pooled_and_ignored_images_do_not_count() -> None:
    first, second = draw(0), draw(1)
    ignored = (torch.ones(1, 6, 5), torch.full((1, 6, 5), IGNORE_INDEX, dtype=torch.uint8))
    joint = tuple(torch.cat(pair) for pair in zip(first, second, strict=True))
    assert score(first, ignored, second) == score((joint[0], joint[1]))
    assert math.isnan(score(ignored))


@pytest.mark.parametrize("protocol", ["survey", "modern"])
def test_metric_can_be_added_to_saliency(protocol: str) -> None:
    experiment = make_tiny_experiment(
        "tasks=[depth, {name: saliency, metrics: [max_f_published]}]", f"protocol={protocol}"
    )
    task = build_tasks(experiment)[1]
    assert not list(metric_errors(task, experiment.protocol))
    assert [spec.name for spec in task.added_metrics] == ["max_f_published"]
