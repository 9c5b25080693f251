"""Experts and gates: the one mechanism that MMoE, ML-MMoE, CGC and PLE wire in their own ways.

A layer's features go by name and are called streams. Experts and gates read streams, and what a
gate mixes is the next layer's stream of the gate's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.distributed.collectives import all_reduce_batch_mean
from densemtl.layers.common import SinglePixelSafeBatchNorm2d, conv_bn_relu, weighted_sum
from densemtl.layers.residual import EXPANSION

Gating = Literal["pixel", "pooled"]
"""One choice for every pixel, or one for the whole map, made from its mean."""

GateWeights = dict[str, Tensor]
"""{taker: Bx(experts seen)xhxw, or x1x1 where pooled; 0..1, summing to 1 over experts}."""


@dataclass(frozen=True)
class ExpertRouting:
    """Who reads what in one layer.

    Attributes:
        expert_inputs: {expert: the stream that it reads}.
        gate_experts: {taker: the experts that it mixes}.
        gates_read_input: every gate looks at what the first layer was given, instead of at the
            stream of its own name.
    """

    expert_inputs: Mapping[str, str]
    gate_experts: Mapping[str, tuple[str, ...]]
    gates_read_input: bool = False

    def list_inputs(self) -> list[str]:
        """What the layer reads."""
        by_gates = () if self.gates_read_input else self.gate_experts
        return list(dict.fromkeys([*self.expert_inputs.values(), *by_gates]))


def name_experts(owner: str, count: int) -> tuple[str, ...]:
    """Names of an owner's experts, different from those of any other owner."""
    return tuple(f"{owner}_{number + 1}" for number in range(count))


class Expert(nn.Module):
    """x + body(x): a bottleneck that is the identity at first, as its last normalisation gives 0.

    Nothing follows the sum, so that features keep their sign. As gates sum to 1, every wiring of
    such experts starts as hard sharing; experts part with the first step, because the bodies are
    drawn at random.

    Args:
        channels: of the feature.
        width: inside the body; a quarter of the channels where it is None.
    """

    def __init__(self, channels: int, width: int | None = None) -> None:
        super().__init__()
        inner, last = width or max(channels // EXPANSION, 1), SinglePixelSafeBatchNorm2d(channels)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            conv_bn_relu(channels, inner, 1),
            conv_bn_relu(inner, inner, 3),
            nn.Conv2d(inner, channels, 1, bias=False),
            last,
        )

    def forward(self, feature: Tensor) -> Tensor:
        """BxCxhxw -> the same."""
        changed: Tensor = feature + self.body(feature)
        return changed


class Gate(nn.Module):
    """softmax(W x) over experts (MMoE, eq. 8), uniform at first."""

    def __init__(self, in_channels: int, num_experts: int, gating: Gating) -> None:
        super().__init__()
        self.gating = gating
        self.score = nn.Conv2d(in_channels, num_experts, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, feature: Tensor) -> Tensor:
        """BxCxhxw -> float32 BxExhxw, or BxEx1x1 where pooled."""
        if self.gating == "pooled":
            feature = feature.mean(dim=(2, 3), keepdim=True)
        return self.score(feature).softmax(dim=1, dtype=torch.float32)


class ExpertLayer(nn.Module):
    """Each expert runs once; each gate mixes those it sees."""

    def __init__(
        self, routing: ExpertRouting, channels: int, width: int | None, gating: Gating
    ) -> None:
        super().__init__()
        self.routing = routing
        self.experts = nn.ModuleDict(
            {name: Expert(channels, width) for name in routing.expert_inputs}
        )
        self.gates = nn.ModuleDict(
            {
                taker: Gate(channels, len(expert_names), gating)
                for taker, expert_names in routing.gate_experts.items()
            }
        )

    def forward(
        self, features: Mapping[str, Tensor], stack_input: Tensor
    ) -> tuple[dict[str, Tensor], GateWeights]:
        """Streams that are read, and the first layer's input -> (streams that are made, gates)."""
        wiring = self.routing
        expert_outputs = {
            name: self.experts[name](features[stream])
            for name, stream in wiring.expert_inputs.items()
        }
        gates = {
            taker: gate(stack_input if wiring.gates_read_input else features[taker])
            for taker, gate in self.gates.items()
        }
        mixed = {
            taker: mix_experts(gates[taker], [expert_outputs[name] for name in expert_names])
            for taker, expert_names in wiring.gate_experts.items()
        }
        return mixed, gates


class ExpertStack(nn.Module):
    """Layers one on another over one feature map, which is every stream of the first."""

    def __init__(
        self, routings: Sequence[ExpertRouting], channels: int, width: int | None, gating: Gating
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ExpertLayer(routing, channels, width, gating) for routing in routings
        )
        self._input_names = routings[0].list_inputs()

    def forward(self, feature: Tensor) -> tuple[dict[str, Tensor], list[GateWeights]]:
        """BxCxhxw -> (the last layer's streams, each layer's gates)."""
        streams, gates = dict.fromkeys(self._input_names, feature), []
        for layer in self.layers:
            streams, used = layer(streams, feature)
            gates.append(used)
        return streams, gates


def mix_experts(gate: Tensor, features: Sequence[Tensor]) -> Tensor:
    """BxExhxw or BxEx1x1 weights, E times BxCxhxw -> their weighted sum."""
    return weighted_sum(gate.to(features[0].dtype).split(1, dim=1), features)


def compute_mean_gates(routing: ExpertRouting, gates: GateWeights) -> Tensor:
    """Takers x experts: each gate's mean over images and pixels, 0 for experts it does not see."""
    columns = {name: column for column, name in enumerate(routing.expert_inputs)}
    rows = []
    for taker, expert_names in routing.gate_experts.items():
        row = gates[taker].new_zeros(len(columns))
        row[[columns[name] for name in expert_names]] = gates[taker].mean(dim=(0, 2, 3))
        rows.append(row)
    return torch.stack(rows)


def compute_mean_entropy(gate: Tensor) -> Tensor:
    """How undecided a gate is at a pixel, on average: 0 one expert alone .. 1 all alike."""
    most = math.log(max(gate.shape[1], 2))
    return torch.special.entr(gate).sum(dim=1).mean() / most


def load_balancing_loss(routing: ExpertRouting, gates: GateWeights) -> Tensor:
    """Squared coefficient of variation of experts' mean gates: 0 all alike .. E - 1 one alone.

    The importance loss of Shazeer et al. (ICLR 2017, eq. 6 and 7). Gates that choose among the
    same experts are averaged first, so that tasks may prefer different ones; different choices are
    averaged afterwards.
    """
    rivals: dict[tuple[str, ...], list[Tensor]] = {}
    for taker, expert_names in routing.gate_experts.items():
        used = all_reduce_batch_mean(gates[taker].mean(dim=(0, 2, 3)))
        rivals.setdefault(expert_names, []).append(used)
    shares = [torch.stack(group).mean(dim=0) for group in rivals.values()]
    return torch.stack([len(share) * share.square().sum() - 1 for share in shares]).mean()
