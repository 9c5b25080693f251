"""Base class of MMoE, ML-MMoE, CGC and PLE: experts and gates at every level of one pyramid."""

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
    """Base class of decoders with a mixture of experts at every level of one feature pyramid.

    Each level has its own stack of expert layers. The head of a task reads the outputs of the
    task's gates in the last layer of all levels. Experts preserve the shapes of the maps, so that
    every head works with every backbone.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        routings: connections of experts and gates in each layer; the gates of the last layer have
            the names of the tasks.
        gating: "pixel" for gate weights per pixel, "pooled" for gate weights per image, computed
            from the mean of the map.
        width: number of channels inside every expert; by default, a quarter of the channels of the
            level.
        load_balance: weight of an auxiliary loss that keeps all experts in use; the papers of the
            methods have none.
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
        """Mix the experts at every level and predict each task.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits of all tasks at the resolution of the features, and the load-balancing loss in
            training if it is enabled.
        """
        streams, gates = self._run_experts(features)
        final = {
            task: head([level[task] for level in streams]) for task, head in self.heads.items()
        }
        return Predictions(final, aux_losses=self._compute_aux_losses(gates))

    def _run_experts(
        self, features: list[Tensor]
    ) -> tuple[list[dict[str, Tensor]], list[list[GateWeights]]]:
        """Return, per level, the output streams of the last layer and the gates of each layer."""
        runs = [stack(feature) for stack, feature in zip(self.levels, features, strict=True)]
        return [streams for streams, _ in runs], [gates for _, gates in runs]

    def _compute_aux_losses(self, level_gates: list[list[GateWeights]]) -> dict[str, Tensor]:
        """Return the weighted mean load-balancing loss of all levels and layers in training."""
        if not (self.training and self.load_balance):
            return {}
        losses = [
            load_balancing_loss(*pair)
            for gates in level_gates
            for pair in zip(self.routings, gates, strict=True)
        ]
        return {"load_balance": self.load_balance * torch.stack(losses).mean()}

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the mean gates of each layer at each level, and their normalized entropy.

        Rows are the gates of a layer: tasks and, in all layers except the last one, also shared
        parts or experts. Columns are the experts of the layer.

        Args:
            image: normalized RGB images (B, 3, H, W) on which the gates are measured.

        Returns:
            {"layer N stage S": mean gates over images and pixels, "entropy layer N": mean entropy
            over levels, in [0, 1]}.
        """
        _, levels = self._run_experts(self.backbone(image))
        mean_gates, entropies = {}, {}
        for index, routing in enumerate(self.routings):
            names, stages = tuple(routing.gate_experts), [gates[index] for gates in levels]
            for stage, gates in enumerate(stages, start=1):
                weights = compute_mean_gates(routing, gates).detach()
                key = f"layer {index + 1} stage {stage}"
                mean_gates[key] = SharingWeights(names, tuple(routing.expert_inputs), weights)
            entropy = [compute_mean_entropy(gates[name]) for name in names for gates in stages]
            weights = torch.stack(entropy).view(len(names), -1).mean(dim=1, keepdim=True).detach()
            entropies[f"entropy layer {index + 1}"] = SharingWeights(names, ("entropy",), weights)
        return {**mean_gates, **entropies}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; experts that read the stream of a task belong to the task, all
            other experts and the backbone are shared, and gates are fusion parameters.
        """
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
