"""Mixture-of-experts layers, which MMoE, ML-MMoE, CGC and PLE connect in different ways.

The named features that a layer reads are called streams. Experts and gates read streams. The output
of a gate, which is a mixture of experts, is the stream of the same name of the next layer.
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
"""Gates per pixel, or one gate per image, computed from the mean of its map."""

GateWeights = dict[str, Tensor]
"""{gate: weights (B, E, H, W) of its E experts, or (B, E, 1, 1) with pooled gating}.

Weights are in [0, 1] and sum to 1 over the experts.
"""


@dataclass(frozen=True)
class ExpertRouting:
    """Connections of one layer of experts and gates.

    Attributes:
        expert_inputs: {expert: name of the stream that it reads}.
        gate_experts: {gate: names of the experts that it mixes}.
        gates_read_input: whether all gates read the input of the first layer, instead of the stream
            of their own name.
    """

    expert_inputs: Mapping[str, str]
    gate_experts: Mapping[str, tuple[str, ...]]
    gates_read_input: bool = False

    def list_inputs(self) -> list[str]:
        """Return the names of all streams that the layer reads."""
        by_gates = () if self.gates_read_input else self.gate_experts
        return list(dict.fromkeys([*self.expert_inputs.values(), *by_gates]))


def name_experts(owner: str, count: int) -> tuple[str, ...]:
    """Return names for the experts of a task or of the shared part.

    Args:
        owner: name of the task, or of the shared part; different owners get different names.
        count: number of experts.

    Returns:
        The names.

    Example:
        >>> name_experts("depth", 2)
        ('depth_1', 'depth_2')
    """
    return tuple(f"{owner}_{number + 1}" for number in range(count))


class Expert(nn.Module):
    """Expert `x + body(x)` with a bottleneck body, initialized as the identity.

    The weights of the last normalization of the body are initialized to 0. No activation follows
    the sum, so that features keep their sign. Because the gates sum to 1, every routing of such
    experts starts as hard sharing. Experts become different in the first optimizer step, because
    their bodies have different random weights.

    Args:
        channels: number of input and output channels.
        width: number of inner channels of the body; a quarter of `channels` if None.
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
        """Apply the expert.

        Args:
            feature: map (B, C, H, W).

        Returns:
            Map of the same shape.
        """
        output: Tensor = feature + self.body(feature)
        return output


class Gate(nn.Module):
    """Gate `softmax(W x)` over experts, uniform at initialization.

    Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018, eq. 8.

    Args:
        in_channels: number of channels of the input.
        num_experts: number of experts E that the gate weighs.
        gating: "pixel" for weights per pixel, "pooled" for weights per image.
    """

    def __init__(self, in_channels: int, num_experts: int, gating: Gating) -> None:
        super().__init__()
        self.gating = gating
        self.score = nn.Conv2d(in_channels, num_experts, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, feature: Tensor) -> Tensor:
        """Compute the weights of the experts.

        Args:
            feature: map (B, in_channels, H, W).

        Returns:
            Float32 weights (B, E, H, W), or (B, E, 1, 1) with pooled gating, which sum to 1 over
            the experts.
        """
        if self.gating == "pooled":
            feature = feature.mean(dim=(2, 3), keepdim=True)
        scores: Tensor = self.score(feature)
        return scores.softmax(dim=1, dtype=torch.float32)


class ExpertLayer(nn.Module):
    """Layer of experts and gates: each expert runs once, each gate mixes its experts.

    Args:
        routing: connections of experts and gates.
        channels: number of channels of every stream.
        width: number of inner channels of the experts; a quarter of `channels` if None.
        gating: "pixel" for gates per pixel, "pooled" for gates per image.
    """

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
                name: Gate(channels, len(expert_names), gating)
                for name, expert_names in routing.gate_experts.items()
            }
        )

    def forward(
        self, features: Mapping[str, Tensor], stack_input: Tensor
    ) -> tuple[dict[str, Tensor], GateWeights]:
        """Apply the layer.

        Args:
            features: {stream: map (B, C, H, W)} of all streams that the layer reads.
            stack_input: input of the first layer, a map (B, C, H, W).

        Returns:
            The output stream of each gate, and the gates.
        """
        expert_outputs = {
            name: self.experts[name](features[stream])
            for name, stream in self.routing.expert_inputs.items()
        }
        gates = {
            name: gate(stack_input if self.routing.gates_read_input else features[name])
            for name, gate in self.gates.items()
        }
        mixed = {
            name: mix_experts(gates[name], [expert_outputs[expert] for expert in expert_names])
            for name, expert_names in self.routing.gate_experts.items()
        }
        return mixed, gates


class ExpertStack(nn.Module):
    """Stack of expert layers; every input stream of the first layer is the same feature map.

    Args:
        routings: connections of each layer, from first to last.
        channels: number of channels of every stream.
        width: number of inner channels of the experts; a quarter of `channels` if None.
        gating: "pixel" for gates per pixel, "pooled" for gates per image.

    Example:
        >>> import torch
        >>> routing = ExpertRouting(
        ...     expert_inputs={"shared_1": "shared", "depth_1": "depth"},
        ...     gate_experts={"depth": ("depth_1", "shared_1")},
        ... )
        >>> stack = ExpertStack([routing], channels=8, width=None, gating="pooled")
        >>> streams, gates = stack(torch.randn(2, 8, 4, 4))
        >>> {name: tuple(stream.shape) for name, stream in streams.items()}
        {'depth': (2, 8, 4, 4)}
        >>> gates[0]["depth"][0].flatten().tolist()
        [0.5, 0.5]
    """

    def __init__(
        self, routings: Sequence[ExpertRouting], channels: int, width: int | None, gating: Gating
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            ExpertLayer(routing, channels, width, gating) for routing in routings
        )
        self._input_names = routings[0].list_inputs()

    def forward(self, feature: Tensor) -> tuple[dict[str, Tensor], list[GateWeights]]:
        """Apply all layers.

        Args:
            feature: map (B, C, H, W).

        Returns:
            The output streams of the last layer, and the gates of each layer.
        """
        streams, gates = dict.fromkeys(self._input_names, feature), []
        for layer in self.layers:
            streams, layer_gates = layer(streams, feature)
            gates.append(layer_gates)
        return streams, gates


def mix_experts(gate: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum of the outputs of experts.

    Args:
        gate: weights (B, E, H, W) or (B, E, 1, 1).
        features: outputs of the E experts, each (B, C, H, W).

    Returns:
        Map (B, C, H, W) in the dtype of the features.
    """
    return weighted_sum(torch.split(gate.to(features[0].dtype), 1, dim=1), features)


def compute_mean_gates(routing: ExpertRouting, gates: GateWeights) -> Tensor:
    """Return the mean of each gate over images and pixels.

    Args:
        routing: connections of the layer.
        gates: gates of the layer.

    Returns:
        Mean weights, shape (gates, experts); 0 for experts that a gate does not mix.
    """
    columns = {name: column for column, name in enumerate(routing.expert_inputs)}
    rows = []
    for name, expert_names in routing.gate_experts.items():
        row = gates[name].new_zeros(len(columns))
        row[[columns[expert] for expert in expert_names]] = gates[name].mean(dim=(0, 2, 3))
        rows.append(row)
    return torch.stack(rows)


def compute_mean_entropy(gate: Tensor) -> Tensor:
    """Return the mean entropy of a gate over images and pixels, normalized to [0, 1].

    Args:
        gate: weights (B, E, H, W) or (B, E, 1, 1).

    Returns:
        A scalar: 0 if the gate always selects a single expert, 1 if all experts have equal weights.
    """
    max_entropy = math.log(max(gate.shape[1], 2))
    entropy: Tensor = torch.special.entr(gate).sum(dim=1).mean()
    return entropy / max_entropy


def load_balancing_loss(routing: ExpertRouting, gates: GateWeights) -> Tensor:
    """Compute the squared coefficient of variation of the mean gates of the experts.

    This is the importance loss of Shazeer et al., "Outrageously Large Neural Networks: The
    Sparsely-Gated Mixture-of-Experts Layer", ICLR 2017, eq. 6 and 7. Gates over the same set of
    experts are averaged before the loss is computed, so that tasks may prefer different experts.
    The losses of different sets of experts are averaged afterwards.

    Args:
        routing: connections of the layer.
        gates: gates of the layer; means are taken over the batches of all ranks.

    Returns:
        A scalar: 0 if all experts have equal weights, E - 1 if a single one of E experts is used.
    """
    gates_of_experts: dict[tuple[str, ...], list[Tensor]] = {}
    for name, expert_names in routing.gate_experts.items():
        mean_gate = all_reduce_batch_mean(gates[name].mean(dim=(0, 2, 3)))
        gates_of_experts.setdefault(expert_names, []).append(mean_gate)
    means = [torch.stack(group).mean(dim=0) for group in gates_of_experts.values()]
    return torch.stack([len(mean) * mean.square().sum() - 1 for mean in means]).mean()
