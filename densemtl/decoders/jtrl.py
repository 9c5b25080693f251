"""Joint task-recursive learning (Zhang et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.backbones.simple_feature_pyramid import ensure_pyramid
from densemtl.config.constraints import NumChannels
from densemtl.decoders.base import BackboneFactory, HeadFactory, SharedBackboneDecoder, make_heads
from densemtl.decoders.initial_prediction import make_logits
from densemtl.errors import ConfigError, suggest
from densemtl.layers.common import MultiLevelConv1x1, SinglePixelSafeBatchNorm2d, conv_bn_relu
from densemtl.layers.residual import basic_block
from densemtl.ops.resize import get_size, resize
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions

States = dict[str, list[Tensor]]
"""{task: its states (B, C_l, H_l, W_l), the latest and finest first}."""


class JTRL(SharedBackboneDecoder):
    """Joint task-recursive learning: tasks are predicted in turn, from coarse to fine.

    Zhang et al., "Joint Task-Recursive Learning for Semantic Segmentation and Depth Estimation",
    ECCV 2018. Each task has a state at every level of the feature pyramid. From the coarsest to the
    finest level, the tasks are visited in order. A visit reads the latest states of the task and of
    the others: those of this level of the tasks that were visited before, and those of the next
    coarser level of the rest. Task-attentional modules (section 3.3) combine them; the new state is
    computed from the result, the backbone feature, and all earlier states of the task (section
    3.2). Every state predicts its task (deep supervision), and the final prediction is computed
    from the states of all levels.

    The method is defined for two tasks and ResNet-50. Here, any number of tasks is possible, as
    every other task has an attentional module of its own; states have the width of their level;
    maps are resized bilinearly instead of by deconvolutions, so that all input sizes are possible.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        order: order in which tasks are visited; by default, the order of `tasks`. The paper
            predicts depth before segmentation.
        sources: tasks whose states a visit reads: "all" other tasks, or the "previous" one in the
            order, which is the last one for the first task. Both are the same for two tasks. The
            cost of "all" grows with the square of the number of tasks.
        pyramid_width: number of channels of the pyramid that is built for backbones whose features
            all have the same size, such as vision transformers.

    Raises:
        ConfigError: if `order` does not contain every task once.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model("jtrl", backbone="test_resnet", tasks=["depth", "edge"])
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
        >>> [tuple(logits["depth"].shape) for logits in predictions.aux_logits]
        [(2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        order: tuple[str, ...] | None = None,
        sources: Literal["all", "previous"] = "all",
        pyramid_width: NumChannels = 256,
    ) -> None:
        super().__init__(make_backbone, tasks)
        self.order = _check_order(order, self.task_names)
        self.pyramid, feature_info = ensure_pyramid(self.backbone.feature_info, pyramid_width)
        widths = feature_info.channels
        self.first_states = nn.ModuleDict(
            {task: conv_bn_relu(widths[-1], widths[-1], 3) for task in self.order}
        )
        self.levels = nn.ModuleList(
            _Level(width, widths[level + 1 :], _find_sources(self.order, sources))
            for level, width in enumerate(widths)
        )
        self.state_heads = nn.ModuleList(make_logits(tasks, width) for width in widths)
        self.heads = make_heads(make_head, feature_info, tasks)

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict each task at every level, and finally from the states of all levels.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Final logits of all tasks, and the logits of the states of each level as auxiliary
            logits, finest first.
        """
        features = self.pyramid(features)
        states: States = {task: [] for task in self.order}
        latest = {task: module(features[-1]) for task, module in self.first_states.items()}
        for level in reversed(range(len(features))):
            latest = self.levels[level](features[level], latest, states)
            states = {task: [latest[task], *states[task]] for task in self.order}
        aux_logits = [
            {task: head(states[task][level]) for task, head in self._get_state_heads(level)}
            for level in range(len(features))
        ]
        final = {task: head(states[task]) for task, head in self.heads.items()}
        return Predictions(final, aux_logits=aux_logits)

    def _get_state_heads(self, level: int) -> Sequence[tuple[str, nn.Module]]:
        heads = self.state_heads[level]
        assert isinstance(heads, nn.ModuleDict)
        return list(heads.items())

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; the backbone and its feature pyramid are shared, the
            task-attentional modules are fusion, and all others belong to one task.
        """
        shared = [*self.backbone.parameters(), *self.pyramid.parameters()]
        groups: dict[str, list[nn.Parameter]] = {SHARED: shared}
        per_task = [self.first_states, self.heads, *self.state_heads]
        levels = [level for level in self.levels if isinstance(level, _Level)]
        per_task += [part for level in levels for part in level.list_task_modules()]
        for task in self.task_names:
            groups[task] = [
                parameter
                for part in per_task
                if task in part
                for parameter in part[task].parameters()
            ]
        groups[FUSION] = [
            parameter for level in levels for parameter in level.attention.parameters()
        ]
        return groups


class _Level(nn.Module):
    """Visits of all tasks at one level of the feature pyramid.

    Args:
        width: number of channels of the level.
        coarser: number of channels of each coarser level, finest first.
        sources: {task: other tasks whose states a visit reads}, in the order of visits.
    """

    def __init__(
        self, width: int, coarser: Sequence[int], sources: Mapping[str, Sequence[str]]
    ) -> None:
        super().__init__()
        self.lift = nn.ModuleDict(
            {task: conv_bn_relu(coarser[0], width, 1) for task in sources} if coarser else {}
        )
        self.attention = nn.ModuleDict(
            {task: TaskAttention(width, len(read)) for task, read in sources.items() if read}
        )
        self.fuse = nn.ModuleDict(
            {task: _fuse_history(width, [width, width, *coarser]) for task in sources}
        )
        self.refine = nn.ModuleDict({task: basic_block(width, width) for task in sources})
        self.sources = dict(sources)

    def forward(
        self, feature: Tensor, latest: Mapping[str, Tensor], states: States
    ) -> dict[str, Tensor]:
        """Return the new state (B, C, H, W) of each task.

        Args:
            feature: backbone feature (B, C, H, W) of the level.
            latest: the latest state of each task.
            states: earlier states of each task.
        """
        size = get_size(feature)
        current = {
            task: resize(self.lift[task](state) if task in self.lift else state, size)
            for task, state in latest.items()
        }
        for task, read in self.sources.items():
            attended = current[task]
            if read:
                attended = self.attention[task](attended, [current[source] for source in read])
            fused = self.fuse[task]([attended, feature, *states[task]])
            current[task] = self.refine[task](fused)
        return current

    def list_task_modules(self) -> list[nn.ModuleDict]:
        """Return the {task: module} of the modules that belong to one task."""
        return [self.lift, self.fuse, self.refine]


def _fuse_history(width: int, channels: Sequence[int]) -> nn.Sequential:
    """Build a 1x1 convolution of maps of several sizes to the size of the first one."""
    return nn.Sequential(
        MultiLevelConv1x1(sum(channels), width, 1, bias=False),
        SinglePixelSafeBatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


class TaskAttention(nn.Module):
    """Task-attentional module, which combines the state of a task with those of other tasks.

    Zhang et al., "Joint Task-Recursive Learning", ECCV 2018, section 3.3. For each source b, a gate
    balances the states of the task a and of b, and the balanced state determines an attention map:

        G = sigmoid(conv([f_a, f_b])),   M_b = sigmoid(conv(conv(G f_a + (1 - G) f_b)))

    The first convolution of M_b has a stride of 2, and M_b is resized to the size of the state. The
    result is a 1x1 convolution of all `(1 + M_b) f_a` and `(1 + M_b) f_b`.

    Args:
        width: number of channels of every state.
        num_sources: number of sources, at least 1.

    Example:
        >>> import torch
        >>> attention = TaskAttention(width=4, num_sources=2)
        >>> attention(torch.randn(2, 4, 7, 9), [torch.randn(2, 4, 7, 9)] * 2).shape
        torch.Size([2, 4, 7, 9])
    """

    def __init__(self, width: int, num_sources: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(num_sources))
        self.attention = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
                SinglePixelSafeBatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(num_sources)
        )
        self.output = nn.Conv2d(2 * num_sources * width, width, 1)

    def forward(self, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Combine the states.

        Args:
            own: state of the task, (B, C, H, W).
            others: states of the sources, of the same shape.

        Returns:
            Map of the same shape.
        """
        attended_own, attended_others = [], []
        for gate, attention, other in zip(self.gates, self.attention, others, strict=True):
            balanced = torch.lerp(other, own, gate(torch.cat([own, other], dim=1)).sigmoid())
            scale = 1 + resize(attention(balanced), get_size(own)).sigmoid()
            attended_own.append(scale * own)
            attended_others.append(scale * other)
        combined: Tensor = self.output(torch.cat([*attended_own, *attended_others], dim=1))
        return combined


def _find_sources(
    order: Sequence[str], sources: Literal["all", "previous"]
) -> dict[str, tuple[str, ...]]:
    """Return {task: tasks whose states its visits read}, in the order of visits."""
    if sources == "all" or len(order) == 1:
        return {task: tuple(other for other in order if other != task) for task in order}
    return {task: (order[index - 1],) for index, task in enumerate(order)}


def _check_order(order: Sequence[str] | None, tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the order of visits, or raise an error if a task is unknown, twice or missing."""
    if order is None:
        return tuple(tasks)
    for name in order:
        if name not in tasks:
            raise ConfigError(f"decoder.order: no task {name!r}, {suggest(name, tasks)}")
    if sorted(order) != sorted(tasks):
        raise ConfigError(
            f"decoder.order: must contain each of {', '.join(tasks)} once, not {', '.join(order)}"
        )
    return tuple(order)
