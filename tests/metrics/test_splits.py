"""Contract tests of all metrics: values do not depend on the split into batches or ranks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.utilities import dim_zero_sum

from densemtl import registry
from densemtl.types import IGNORE_INDEX

IMAGES = 6
KINDS = [
    ("semseg", {"class_names": ["a", "b", "c"]}),
    ("depth", {}),
    ("normals", {}),
    ("edge", {"max_distance": 0.2}),
    ("binary", {}),
    ("saliency", {}),
    ("regression", {"channels": 2}),
]


def make(name, options):
    return registry.create("tasks", name, name, options=options)


def metric_of(task, protocol):
    """Create the metric that Delta_m compares."""
    return task.make_final_metric(protocol) or task.make_metric(protocol)


def draw(task, seed=0):
    """Return decoded predictions and targets of a few images, one of them without valid pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(IMAGES, task.channels, 5, 7, generator=generator)
    ignored = torch.rand(IMAGES, 5, 7, generator=generator) < 0.3
    ignored[2] = True
    if task.make_empty_label((1, 1)).dtype == np.uint8:
        target = torch.randint(0, max(task.channels, 2), (IMAGES, 5, 7), generator=generator).byte()
        target[ignored] = IGNORE_INDEX
    else:
        target = torch.rand(logits.shape, generator=generator) + 0.5
        target[ignored.unsqueeze(1).expand_as(target)] = torch.nan
    return task.decode(logits), target


def update_in_batches(task, protocol, cuts):
    """Create a metric and update it with batches that end at the given indices."""
    prediction, target = draw(task)
    metric = metric_of(task, protocol)
    bounds = [0, *sorted(cuts), IMAGES]
    for start, stop in pairwise(bounds):
        metric.update(prediction[start:stop], target[start:stop])
    return metric


@pytest.mark.parametrize("protocol", ["survey", "modern"])
@pytest.mark.parametrize(("name", "options"), KINDS)
@settings(max_examples=12)
@given(cuts=st.lists(st.integers(0, IMAGES), max_size=4))
def test_values_do_not_depend_on_batches(name, options, protocol, cuts):
    task = make(name, options)
    one_batch, several_batches = (
        update_in_batches(task, protocol, []).compute_dict(),
        update_in_batches(task, protocol, cuts).compute_dict(),
    )
    assert all(math.isfinite(value) for value in one_batch.values())
    assert several_batches == pytest.approx(one_batch, rel=1e-9)


@pytest.mark.parametrize("protocol", ["survey", "modern"])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_summed_states_of_two_ranks_have_the_same_values(name, options, protocol):
    task = make(name, options)
    prediction, target = draw(task)
    ranks = [metric_of(task, protocol) for _ in range(2)]
    for rank, metric in enumerate(ranks):
        metric.update(prediction[rank::2], target[rank::2])
    total = metric_of(task, protocol)
    assert set(total._reductions.values()) == {dim_zero_sum}
    total.update(prediction[:0], target[:0])
    for state in total._defaults:
        setattr(total, state, sum(getattr(metric, state) for metric in ranks))
    assert total.compute_dict() == pytest.approx(
        update_in_batches(task, protocol, []).compute_dict(), rel=1e-9
    )


@pytest.mark.parametrize("protocol", ["survey", "modern"])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_reset_clears_states_and_values_include_the_primary_metric(name, options, protocol):
    task = make(name, options)
    prediction, target = draw(task)
    metric = metric_of(task, protocol)
    metric.update(prediction.flip(-1), target)
    metric.reset()
    metric.update(prediction, target)
    assert metric.compute_dict() == update_in_batches(task, protocol, []).compute_dict()
    assert task.get_primary_metric(protocol) in metric.compute_dict()


@pytest.mark.parametrize("protocol", ["survey", "modern"])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_update_does_not_modify_its_arguments(name, options, protocol):
    task = make(name, options)
    prediction, target = draw(task)
    copies = prediction.clone(), target.clone()
    metric_of(task, protocol).update(prediction, target)
    torch.testing.assert_close((prediction, target), copies, rtol=0, atol=0, equal_nan=True)
