"""What MMoE, ML-MMoE, CGC and PLE share: experts and gates on every level of one pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.config.constraints import NonNegativeFloat, NumChannels
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.layers.mixture_of_experts import (
    ExpertLayer,
    ExpertRouting,
    ExpertStack,
    GateWeights,
    Gating,
    compute_mean_entropy,
    compute_mean_gates,
    load_balancing_loss,
)
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions, SharingWeights


class MixtureOfExperts(SharedBackboneDecoder):
    """Each level of the pyramid has a stack of layers of its own; a head reads its task's streams.

    Widths and sizes are kept, so that any head works on any backbone's pyramid.

    Args:
        make_backbone: makes the one backbone.
        make_head: makes each task's head.
        tasks: the run's.
        routings: of each layer; the last one's takers are the tasks.
        gating: a choice for every "pixel", or for the whole image from its "pooled" feature.
        width: channels inside every expert; a quarter of its level's if left out.
        load_balance: weight of a loss that keeps all experts in use; the papers have none.
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        routings: Sequence[ExpertRouting],
        *,
        gating: Gating = "pixel",
        width: NumChannels | None = None,
        load_balance: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(make_backbone, tasks)
        spec = self.backbone.feature_info
        self.routings, self.load_balance = tuple(routings), load_balance
        self.levels = nn.ModuleList(
            ExpertStack(routings, channels, width, gating) for channels in spec.channels
        )
        self.heads = make_heads(make_head, spec, tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> logits of every task, and the imbalance if that is asked."""
        streams, gates = self._run_experts(features)
        final = {
            task: head([level[task] for level in streams]) for task, head in self.heads.items()
        }
        return Predictions(final, aux_losses=self._compute_aux_losses(gates))

    def _run_experts(
        self, features: list[Tensor]
    ) -> tuple[list[dict[str, Tensor]], list[list[GateWeights]]]:
        """The pyramid -> for each level the last layer's streams, and the gates of each layer."""
        runs = [stack(feature) for stack, feature in zip(self.levels, features, strict=True)]
        return [streams for streams, _ in runs], [gates for _, gates in runs]

    def _compute_aux_losses(self, level_gates: list[list[GateWeights]]) -> dict[str, Tensor]:
        """The mean imbalance over levels and layers, in training."""
        if not (self.training and self.load_balance):
            return {}
        losses = [
            load_balancing_loss(*pair)
            for gates in level_gates
            for pair in zip(self.routings, gates, strict=True)
        ]
        return {"load_balance": self.load_balance * torch.stack(losses).mean()}

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Each layer's mean gates at each stage, and their entropy in 0..1, its mean over stages.

        Takers are tasks, and in lower layers what else has a gate; sources are experts.
        """
        _, levels = self._run_experts(self.backbone(image))
        mean_gates, entropies = {}, {}
        for index, wiring in enumerate(self.routings):
            takers, stages = tuple(wiring.gate_experts), [gates[index] for gates in levels]
            for stage, gates in enumerate(stages, start=1):
                weights = compute_mean_gates(wiring, gates).detach()
                key = f"layer {index + 1} stage {stage}"
                mean_gates[key] = SharingWeights(takers, tuple(wiring.expert_inputs), weights)
            spread = [compute_mean_entropy(gates[taker]) for taker in takers for gates in stages]
            weights = torch.stack(spread).view(len(takers), -1).mean(dim=1, keepdim=True).detach()
            entropies[f"entropy layer {index + 1}"] = SharingWeights(takers, ("entropy",), weights)
        return {**mean_gates, **entropies}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Experts that read a task's stream are the task's, others shared; gates are fusion."""
        head_parameters = {task: list(head.parameters()) for task, head in self.heads.items()}
        groups = {SHARED: list(self.backbone.parameters()), **head_parameters, FUSION: []}
        for layer in (
            module for module in self.levels.modules() if isinstance(module, ExpertLayer)
        ):
            for name, stream in layer.routing.expert_inputs.items():
                groups[stream if stream in head_parameters else SHARED] += layer.experts[
                    name
                ].parameters()
            groups[FUSION] += layer.gates.parameters()
        return groups
