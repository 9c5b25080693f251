"""ATRC: adaptive task-relational context (Brueggemann et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from densemtl.config.constraints import NumChannels, PositiveFloat, SmallNonNegativeInt
from densemtl.decoders.atrc_contexts import (
    LABEL_OWNERS,
    ContextFusion,
    ContextName,
    Contexts,
    choose_contexts,
    compute_regions,
    count_regions,
    make_context,
)
from densemtl.decoders.atrc_search import SearchedContext, list_choices
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.errors import ConfigError
from densemtl.layers.common import conv_bn_relu
from densemtl.layers.value_classes import ValueClasses
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.types import FUSION, SHARED, FeatureInfo, Predictions, SharingWeights

DROPOUT = 0.05
"""Probability with which a channel of the last feature is set to 0 in training."""


class ATRC(SharedBackboneDecoder):
    """ATRC: each task reads the feature of each task, itself included, by a type of attention.

    Brueggemann et al., "Exploring Relational Context for Multi-Task Dense Prediction", ICCV 2021.
    All levels of the backbone are resized to the finest one and concatenated; each task has a
    feature of `width` channels. For every pair of a target and a source task, a context reads the
    feature of the source for each pixel of the target:

    - `global`: attention to all pixels, computed in linear time by a kernel;
    - `local`: attention to a window of 9x9 pixels;
    - `target_label`, `source_label`: attention to the mean features in the regions of each class,
      which the target or the source task predicts initially. These predictions are supervised, and
      read the levels without passing a gradient to the backbone;
    - `none`: nothing.

    The contexts of a target are reduced to a map that is 0 at initialization, and mixed with its
    feature. The published types of pairs were found by an architecture search for one backbone and
    dataset. `search: true` runs it: every pair is a mixture of all contexts but `local`, whose
    weights are learned (`SearchedContext`). The most probable ones, which are logged as sharing
    weights, are the `contexts` of a second run.

    Tasks with values have regions as well: depth is divided into 40 intervals, and normals into 40
    clusters, which are classified initially (`ValueClasses`). A training run computes them from its
    training labels; the published ones are constants for each dataset. Tasks with several values
    per pixel have no regions: where `context` needs them, the pair has the context `global`. The
    published code leaves padded pixels out of the regions; here, they are included.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads, which read one map of `width` channels; called once per task.
            The published head is `linear`.
        tasks: tasks to predict.
        context: context of all pairs that `contexts` does not name.
        contexts: {target: {source: context}} of single pairs.
        search: whether the context of each pair is learned.
        temperature: temperature of the samples of contexts in a search; lower values are closer to
            a single context.
        width: number of channels of the feature of each task; by default a quarter of the sum of
            the channels of all levels.
        value_classes: number of classes, at least 2, into which scalars and directions are divided;
            0 for no regions of these tasks.

    Raises:
        ConfigError: if `contexts` contains an unknown task, or a label context of a task without
            regions, or is set for a search, or `value_classes` is 1.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "atrc", "contexts": {"depth": {"edge": "local"}}},
        ...     backbone="test_resnet",
        ...     head="linear",
        ...     tasks=["depth", "edge"],
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
        >>> list(predictions.aux_logits[0]), list(predictions.value_class_logits)
        (['edge'], ['depth'])
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        context: ContextName = "target_label",
        contexts: Contexts | None = None,
        search: bool = False,
        temperature: PositiveFloat = 1.0,
        width: NumChannels | None = None,
        value_classes: SmallNonNegativeInt = 40,
    ) -> None:
        super().__init__(make_backbone, tasks)
        info = self.backbone.feature_info
        total = sum(info.channels)
        channels = width or max(total // 4, 1)
        inner = max(channels // 2, 1)
        num_regions = count_regions(tasks, value_classes)
        if search and contexts:
            raise ConfigError("decoder.contexts: cannot be set with decoder.search=true; remove it")
        self.pairs = choose_contexts(self.task_names, context, contexts or {}, num_regions)
        self.search = search
        self.features = nn.ModuleDict(
            {name: conv_bn_relu(total, channels, 3) for name in self.task_names}
        )
        owners = set(num_regions if search else ()) | {
            pair[LABEL_OWNERS[name]] for pair, name in self.pairs.items() if name in LABEL_OWNERS
        }
        self.initial_heads = nn.ModuleDict(
            {
                name: nn.Sequential(conv_bn_relu(total, total, 1), nn.Conv2d(total, count, 1))
                for name, count in num_regions.items()
                if name in owners
            }
        )
        self.value_classes = nn.ModuleDict(
            {
                task.name: ValueClasses(task, value_classes)
                for task in tasks
                if task.name in owners and not isinstance(task, CategoricalTask)
            }
        )
        self.contexts, self.fusions = nn.ModuleDict(), nn.ModuleDict()
        for target in self.task_names:
            read: dict[str, nn.Module] = {
                source: make_context(name, channels, inner)
                for (reader, source), name in self.pairs.items()
                if reader == target and name != "none"
            }
            if search:
                choices = {s: list_choices(target, s, list(num_regions)) for s in self.task_names}
                read = {
                    source: SearchedContext(names, channels, inner, temperature)
                    for source, names in choices.items()
                }
            self.contexts[target] = nn.ModuleDict(read)
            self.fusions[target] = ContextFusion(channels, inner, len(read))
        self.dropout = nn.Dropout2d(DROPOUT)
        self.heads = make_heads(make_head, FeatureInfo((channels,), info.strides[:1]), tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict each task from its feature and from what it has read from all tasks.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits of all tasks, and the initial logits of tasks with regions: auxiliary logits, or
            logits of the classes of values.
        """
        size = get_size(features[0])
        joint = torch.cat([resize(each, size) for each in features], dim=1)
        initial = {task: head(joint.detach()) for task, head in self.initial_heads.items()}
        regions = {task: compute_regions(logits) for task, logits in initial.items()}
        maps = {task: module(joint) for task, module in self.features.items()}
        logits = {}
        for target, head in self.heads.items():
            read = self._read_contexts(target, maps, regions)
            logits[target] = head([self.dropout(self.fusions[target](maps[target], read))])
        by_value = {task: classes(initial[task]) for task, classes in self.value_classes.items()}
        by_class = {task: each for task, each in initial.items() if task not in by_value}
        return Predictions(logits, [by_class] if by_class else [], value_class_logits=by_value)

    def _read_contexts(
        self, target: str, maps: Mapping[str, Tensor], regions: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """Return what a task reads from each source."""
        contexts = self.contexts[target]
        assert isinstance(contexts, nn.ModuleDict)
        read = []
        for source, context in contexts.items():
            pair = (target, source)
            labels = {
                name: regions[pair[owner]]
                for name, owner in LABEL_OWNERS.items()
                if pair[owner] in regions
            }
            searched = isinstance(context, SearchedContext)
            label = labels if searched else labels.get(self.pairs[pair])
            read.append(context(maps[target], maps[source], label))
        return read

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; contexts are fusion, and all others but the backbone belong to one
            task.
        """
        parts = (self.features, self.initial_heads, self.fusions, self.heads)
        return {
            SHARED: list(self.backbone.parameters()),
            **{
                task: [each for part in parts if task in part for each in part[task].parameters()]
                for task in self.task_names
            },
            FUSION: list(self.contexts.parameters()),
        }

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return how much the output of each task changes with what it reads from each task.

        Args:
            image: not used.

        Returns:
            {"contexts": Frobenius norm of the weights that reduce each context, including the scale
            of the normalization}; 0 at initialization, and for pairs without context. In a search
            also {"source S": probability of each context of S in each task}.
        """
        return {"contexts": self._compute_norms(), **self._get_probabilities()}

    def _compute_norms(self) -> SharingWeights:
        device = next(self.parameters()).device
        table = torch.zeros(len(self.task_names), len(self.task_names), device=device)
        for row, target in enumerate(self.task_names):
            fusion, contexts = self.fusions[target], self.contexts[target]
            assert isinstance(fusion, ContextFusion)
            assert isinstance(contexts, nn.ModuleDict)
            if fusion.reduce is None:
                continue
            convolution, norm = fusion.reduce
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            weight = convolution.weight.flatten(1) * norm.weight[:, None]
            for source, part in zip(contexts, weight.chunk(len(contexts), dim=1), strict=True):
                table[row, self.task_names.index(source)] = part.detach().norm()
        return SharingWeights(self.task_names, self.task_names, table)

    def _get_probabilities(self) -> dict[str, SharingWeights]:
        """Return the probabilities of the contexts in a search; empty without."""
        columns = get_args(ContextName)
        tables: dict[str, SharingWeights] = {}
        if not self.search:
            return tables
        for source in self.task_names:
            rows = []
            for target in self.task_names:
                contexts = self.contexts[target]
                assert isinstance(contexts, nn.ModuleDict)
                context = contexts[source]
                assert isinstance(context, SearchedContext)
                row = context.logits.new_zeros(len(columns))
                for name, share in zip(
                    context.choices, context.compute_probabilities().detach(), strict=True
                ):
                    row[columns.index(name)] = share
                rows.append(row.detach())
            weights = torch.stack(rows)
            tables[f"source {source}"] = SharingWeights(self.task_names, columns, weights)
        return tables
