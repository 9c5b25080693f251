"""Contexts of ATRC: attention of a task to the feature of another task, in four ways."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.errors import ConfigError, suggest
from densemtl.layers.common import SinglePixelSafeBatchNorm2d, conv_bn_relu
from densemtl.layers.kernel_attention import kernel_attention
from densemtl.layers.value_classes import has_value_classes
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask

ContextName = Literal["none", "global", "local", "target_label", "source_label"]
"""How a target task reads the feature of a source task."""

Contexts = dict[str, dict[str, ContextName]]
"""{target task: {source task: context}}."""

LABEL_OWNERS: dict[ContextName, int] = {"target_label": 0, "source_label": 1}
"""{label context: index of the task in (target, source) whose classes are the regions}."""

LOCAL_RADIUS = 4
"""Local attention reads windows of 9x9 pixels."""


class Context(nn.Module):
    """Base class of contexts: queries of the target; keys and values of the source.

    Queries and keys are computed by two 1x1 convolutions each, values by one, all with batch
    normalization and ReLU. Weights are initialized as in the published code (Xavier, uniform).

    Args:
        channels: number of channels C of the features of tasks.
        width: number of channels d of queries, keys and values.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.query = _make_projection(channels, width)
        self.key = _make_projection(channels, width)
        self.value = conv_bn_relu(channels, width, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, target: Tensor, source: Tensor, label: Tensor | None) -> Tensor:
        """Read the feature of the source.

        Args:
            target: feature of the target task (B, C, H, W).
            source: feature of the source task (B, C, H, W).
            label: weights (B, K, H W) of the pixels in each of K regions, which sum to 1 over the
                pixels; only for label contexts.

        Returns:
            Map (B, d, H, W).
        """
        raise NotImplementedError


class GlobalContext(Context):
    """Attention to all pixels of the source with a kernel, in linear time.

    Softplus replaces the last ReLU of queries and keys.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width)
        self.query[-1] = nn.Softplus()
        self.key[-1] = nn.Softplus()

    def forward(self, target: Tensor, source: Tensor, label: Tensor | None) -> Tensor:
        """See `Context.forward`."""
        queries, keys, values = self.query(target), self.key(source), self.value(source)
        read = kernel_attention(queries.flatten(2), keys.flatten(2), values.flatten(2))
        return read.view_as(queries)


class LabelContext(Context):
    """Attention to the mean features of the source in each region.

    The regions are those of the initial prediction of the target or of the source task.
    """

    def forward(self, target: Tensor, source: Tensor, label: Tensor | None) -> Tensor:
        """See `Context.forward`."""
        assert label is not None
        regions = (source.flatten(2) @ label.to(source.dtype).mT)[..., None]
        queries = self.query(target)
        keys, values = self.key(regions)[..., 0], self.value(regions)[..., 0]
        logits = self.scale * (queries.flatten(2).mT @ keys)
        read: Tensor = values @ logits.softmax(dim=2).to(values.dtype).mT
        return read.view_as(queries)


class LocalContext(Context):
    """Attention of each pixel to a window of the source around it.

    Pixels outside the map are not attended to. The weights of one offset are computed at a time, so
    that windows are never copied.
    """

    def forward(self, target: Tensor, source: Tensor, label: Tensor | None) -> Tensor:
        """See `Context.forward`."""
        queries, keys, values = self.query(target), self.key(source), self.value(source)
        height, width = queries.shape[2:]
        border = (LOCAL_RADIUS,) * 4
        padded_keys, padded_values = F.pad(keys, border), F.pad(values, border)
        inside = F.pad(torch.ones_like(keys[:1, :1]), border)
        side = 2 * LOCAL_RADIUS + 1
        offsets = [(top, left) for top in range(side) for left in range(side)]

        def shift(padded: Tensor, top: int, left: int) -> Tensor:
            return padded[:, :, top : top + height, left : left + width]

        logits = torch.cat(
            [
                (queries * shift(padded_keys, *offset))
                .sum(dim=1, keepdim=True)
                .masked_fill(shift(inside, *offset) == 0, -torch.inf)
                for offset in offsets
            ],
            dim=1,
        )
        shares = torch.split((self.scale * logits).softmax(dim=1).to(values.dtype), 1, dim=1)
        read = torch.zeros_like(values)
        for share, offset in zip(shares, offsets, strict=True):
            read = torch.addcmul(read, share, shift(padded_values, *offset))
        return read


def make_context(name: ContextName, channels: int, width: int) -> Context:
    """Create a context.

    Args:
        name: name of the context; not "none".
        channels: number of channels C of the features of tasks.
        width: number of channels d of queries, keys and values.

    Returns:
        The context.
    """
    classes = {"global": GlobalContext, "local": LocalContext}
    return classes.get(name, LabelContext)(channels, width)


def compute_regions(logits: Tensor) -> Tensor:
    """Compute the weights with which pixels are averaged in each region.

    They are the softmax over the pixels of the logits of each class. A single logit is that of a
    binary task: the regions are those of both of its classes.

    Args:
        logits: logits (B, K, H, W).

    Returns:
        Weights (B, K, H W), or (B, 2, H W) for a binary task, which sum to 1 over the pixels.

    Example:
        >>> import torch
        >>> compute_regions(torch.zeros(1, 1, 1, 2))
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """
    if logits.shape[1] == 1:
        logits = torch.cat([-logits / 2, logits / 2], dim=1)
    return logits.flatten(2).softmax(dim=2)


def _make_projection(channels: int, width: int) -> nn.Sequential:
    """Return two 1x1 convolutions with batch normalization and ReLU."""
    return nn.Sequential(*conv_bn_relu(channels, width, 1), *conv_bn_relu(width, width, 1))


class ContextFusion(nn.Module):
    """Combination of the feature of a task with everything that it has read.

    The scale and the offset of the normalization are 0 at initialization, so that the first output
    is computed from the feature of the task alone.

    Args:
        channels: number of channels C of the feature of the task.
        width: number of channels d of each context.
        count: number of contexts; 0 leaves only one 1x1 convolution.
    """

    def __init__(self, channels: int, width: int, count: int) -> None:
        super().__init__()
        self.reduce: nn.Sequential | None = None
        if count:
            norm = SinglePixelSafeBatchNorm2d(channels)
            nn.init.zeros_(norm.weight)
            self.reduce = nn.Sequential(nn.Conv2d(count * width, channels, 1, bias=False), norm)
        self.mix = conv_bn_relu(2 * channels if count else channels, channels, 1)

    def forward(self, feature: Tensor, contexts: list[Tensor]) -> Tensor:
        """Combine maps.

        Args:
            feature: feature of the task (B, C, H, W).
            contexts: maps (B, d, H, W) of the contexts.

        Returns:
            Map (B, C, H, W).
        """
        if self.reduce is not None:
            feature = torch.cat([feature, self.reduce(torch.cat(contexts, dim=1))], dim=1)
        mixed: Tensor = self.mix(feature)
        return mixed


def count_regions(tasks: Sequence[Task], value_classes: int) -> dict[str, int]:
    """Return the number of initial logits of each task with regions.

    Args:
        tasks: all tasks.
        value_classes: number of classes into which values are divided; 0 for no regions.

    Returns:
        {task: number of logits}.

    Raises:
        ConfigError: if `value_classes` is 1.
    """
    if value_classes == 1:
        raise ConfigError("decoder.value_classes: 1 class has no boundaries; use 0 or at least 2")
    return {
        task.name: task.channels if isinstance(task, CategoricalTask) else value_classes
        for task in tasks
        if isinstance(task, CategoricalTask) or (value_classes and has_value_classes(task))
    }


def choose_contexts(
    names: Sequence[str], default: ContextName, chosen: Contexts, with_regions: Collection[str]
) -> dict[tuple[str, str], ContextName]:
    """Choose the context of each pair of tasks.

    Args:
        names: names of all tasks.
        default: context of all pairs that `chosen` does not name. It is `global` where the regions
            that it needs do not exist.
        chosen: {target: {source: context}}.
        with_regions: names of the tasks with regions.

    Returns:
        {(target, source): context} of all pairs.

    Raises:
        ConfigError: if `chosen` contains an unknown task, or regions that do not exist.
    """
    for target, sources in chosen.items():
        for name in (target, *sources):
            if name not in names:
                hint = suggest(name, names)
                raise ConfigError(f"decoder.contexts: unknown task {name!r}; {hint}")
    pairs: dict[tuple[str, str], ContextName] = {}
    for target in names:
        for source in names:
            pair, given = (target, source), chosen.get(target, {}).get(source)
            context = given or default
            owner = LABEL_OWNERS.get(context)
            if owner is not None and pair[owner] not in with_regions:
                if given:
                    raise ConfigError(
                        f"decoder.contexts.{target}.{source}: {given} needs regions, but"
                        f" {pair[owner]!r} has none; use global"
                    )
                context = "global"
            pairs[pair] = context
    return pairs
