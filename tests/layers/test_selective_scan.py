"""Selective scan: chunked computation against a loop over positions, orders of pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from densemtl.layers import chunked_scan
from densemtl.layers.selective_scan import scan_by_kernel, selective_scan
from densemtl.layers.selective_scan_2d import SelectiveScan2d, list_sequences
from tests.helpers.exact import assert_all_same, assert_same


def loop(inputs: Tensor, steps: Tensor, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """Compute one position after the other."""
    state = torch.zeros(*inputs.shape[:3], decay.shape[2])
    outputs = []
    for at in range(inputs.shape[3]):
        step = steps[..., at, None]
        added = step * write[:, :, None, :, at] * inputs[..., at, None]
        state = torch.exp(step * decay) * state + added
        outputs.append(torch.einsum("bken,bkn->bke", state, read[..., at]))
    return torch.stack(outputs, dim=3)


def make_sequences(length: int) -> list[Tensor]:
    """Return random inputs, steps, decay rates, write and read weights."""
    torch.manual_seed(0)
    return [
        torch.randn(2, 3, 4, length),
        torch.rand(2, 3, 4, length),
        -3 * torch.rand(3, 4, 5),
        torch.randn(2, 3, 5, length),
        torch.randn(2, 3, 5, length),
    ]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("states", [1, 2**20])
@pytest.mark.parametrize(
    ("length", "chunk"), [(1, 8), (1, None), (17, 128), (17, 5), (17, None), (64, 16), (64, None)]
)
def test_chunks_equal_a_loop(
    length: int, chunk: int | None, states: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and gradients are the same, also if the positions are split into segments."""
    monkeypatch.setattr(chunked_scan, "STATES_ON_CPU", states)
    found, expected = make_sequences(length), make_sequences(length)
    weights = torch.randn(2, 3, 4, length)
    for leaf in (*found, *expected):
        leaf.requires_grad_()
    outputs = selective_scan(*found, chunk=chunk), loop(*expected)
    for output in outputs:
        (output * weights).sum().backward()
    assert_same(outputs[0].detach(), outputs[1].detach())
    gradients = [[each.grad for each in leaves] for leaves in (found, expected)]
    assert_all_same(*gradients)  # type: ignore[arg-type]
    with torch.no_grad():
        assert_same(selective_scan(*found, chunk=chunk), outputs[1])


@pytest.mark.usefixtures("double_precision")
def test_kernel_gets_directions_as_groups_of_channels() -> None:
    """The loop of a group stands for the kernel of mamba_ssm, whose layout is (B, K E, L)."""

    def kernel(inputs: Tensor, steps: Tensor, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
        groups = write.shape[1]
        assert inputs.shape[1] == steps.shape[1] == decay.shape[0] == groups * 4
        outputs = [
            loop(x[:, None], step[:, None], rate[None], write[:, [group]], read[:, [group]])
            for group, (x, step, rate) in enumerate(
                zip(
                    inputs.chunk(groups, 1),
                    steps.chunk(groups, 1),
                    decay.chunk(groups),
                    strict=True,
                )
            )
        ]
        return torch.cat(outputs, dim=1).flatten(1, 2)

    sequences = make_sequences(6)
    assert_same(scan_by_kernel(kernel, *sequences), loop(*sequences))


class Scan(nn.Module):
    """Module that can be exported."""

    def forward(self, sequences: list[Tensor]) -> Tensor:
        """Run the scan."""
        return selective_scan(*sequences)


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
def test_exported_graph_equals_a_loop_at_any_length_and_batch_size() -> None:
    batch, positions = Dim("batch", min=1), Dim("positions", min=1)
    dynamic = {0: batch, 3: positions}
    shapes = ([dynamic, dynamic, {}, dynamic, dynamic],)
    program = torch.export.export(Scan(), (make_sequences(6),), dynamic_shapes=shapes)
    for length, images in ((6, 2), (1, 1), (17, 1)):
        sequences = make_sequences(length)
        sequences = [each if index == 2 else each[:images] for index, each in enumerate(sequences)]
        assert_same(program.module()(sequences), loop(*sequences))
    assert len(program.graph.nodes) < 50  # positions are not unrolled


def test_strong_decay_is_finite_and_leaves_no_memory() -> None:
    inputs, steps, decay, write, read = make_sequences(40)
    found = selective_scan(inputs, steps + 1, decay * 0 - 1e4, write, read)
    expected = (steps + 1) * inputs * (write * read).sum(dim=2, keepdim=True)
    torch.testing.assert_close(found, expected)


def test_padding_has_finite_gradients_without_memory() -> None:
    inputs, steps, _, write, read = make_sequences(10)
    inputs.requires_grad_()
    decay = torch.full((3, 4, 5), -torch.inf)
    selective_scan(inputs, steps, decay, write, read, chunk=4).sum().backward()
    expected = steps * (write * read).sum(dim=2, keepdim=True)
    torch.testing.assert_close(inputs.grad, expected)


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("own_source", [True, False])
def test_scan_of_a_map(own_source: bool) -> None:
    """Visit the pixels of a map in each direction by index."""
    torch.manual_seed(0)
    scan = SelectiveScan2d(4, rank=2, states=3)
    scan.skip.normal_()
    scan.norm.weight.normal_()
    scan.norm.bias.normal_()
    x, source = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    by_rows = [(row, column) for row in range(3) for column in range(5)]
    by_columns = [(row, column) for column in range(5) for row in range(3)]
    total = torch.zeros_like(x)
    for index, order in enumerate((by_rows, by_columns, by_rows[::-1], by_columns[::-1])):
        sequence = torch.stack([x[:, :, row, column] for row, column in order], 2)
        origin = sequence
        if not own_source:
            origin = torch.stack([source[:, :, row, column] for row, column in order], 2)
        low, write, read = torch.split(
            torch.einsum("ce,bel->bcl", scan.coefficients[index], origin), [2, 3, 3], 1
        )
        steps = torch.einsum("er,brl->bel", scan.step_weight[index], low)
        steps = F.softplus(steps + scan.step_bias[index][:, None])
        decay = -scan.log_decay[index].exp()[None]
        output = loop(
            *(each[:, None] for each in (sequence, steps)), decay, write[:, None], read[:, None]
        )
        output = output[:, 0] + scan.skip[index][:, None] * sequence
        for at, (row, column) in enumerate(order):
            total[:, :, row, column] += output[:, :, at]
    centered = total - total.mean(1, keepdim=True)
    scale = (centered.square().mean(1, keepdim=True) + scan.norm.eps).sqrt()
    expected = centered / scale * scan.norm.weight[:, None, None] + scan.norm.bias[:, None, None]
    assert_same(scan(x, None if own_source else source), expected)


def test_initialization() -> None:
    torch.manual_seed(0)
    scan = SelectiveScan2d(256, rank=16, states=4)
    steps = F.softplus(scan.step_bias)
    assert 0.001 * 0.99 < steps.min().item() < 0.0012
    assert 0.08 < steps.max().item() < 0.1 * 1.01
    assert steps.log().mean().item() == pytest.approx(math.log(0.01), abs=0.15)
    rates = scan.log_decay.exp()
    torch.testing.assert_close(rates, torch.arange(1.0, 5).expand_as(rates))
    assert scan.step_weight.abs().max().item() == pytest.approx(0.25, rel=0.01)


def test_each_direction_visits_each_pixel_once() -> None:
    sequences = list_sequences(torch.arange(12.0).view(1, 1, 3, 4))[0, :, 0]
    for sequence in sequences:
        assert sorted(sequence.tolist()) == list(range(12))
    assert sequences[1, :4].tolist() == [0, 4, 8, 1]
    assert torch.equal(sequences[2:], sequences[:2].flip(1))
