"""Branched networks: tasks share the stages of the backbone along a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.backbones.staged_forward import StageState
from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.errors import ConfigError, suggest
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.tasks.base import Task
from densemtl.types import FUSION, SHARED, Predictions

Group = tuple[str, ...]
"""Names of the tasks that share a copy of a stage."""

Tree = tuple[tuple[Group, ...], ...]
"""Groups of each stage, first stage first; each stage divides the groups of the stage before."""


class Branched(Decoder):
    """Branched network: groups of tasks share the stages of the backbone along a tree.

    The layers before the first stage are shared by all tasks. Each group of a stage has its own
    copy of the stage, which reads the output of the group of the stage before that contains it. All
    copies start with the same weights, so that the network initially predicts the same as hard
    sharing. The tree is given; `densemtl branch` finds one from trained networks.

    Lu et al., "Fully-adaptive Feature Sharing in Multi-Task Networks", CVPR 2017; Vandenhende et
    al., "Branched Multi-Task Networks: Deciding What Layers To Share", BMVC 2020.

    Args:
        make_backbone: factory of backbones; called once.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        tree: groups of tasks at each stage of the backbone, such as
            `[[[semseg, depth, edge]], [[semseg, depth], [edge]], ...]`. By default, all tasks share
            all stages except the last one, of which each task has a copy.

    Raises:
        ConfigError: if the tree does not have one list of groups per stage, if a stage does not
            contain every task once, or if it joins tasks that an earlier stage separates.
        ModelError: if the backbone cannot be run stage by stage.

    Example:
        >>> import torch
        >>> import densemtl
        >>> together, apart = [["depth", "edge"]], [["depth"], ["edge"]]
        >>> model = densemtl.create_model(
        ...     {"name": "branched", "tree": [together, together, apart, apart]},
        ...     backbone="test_resnet",
        ...     tasks=["depth", "edge"],
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        tree: tuple[tuple[tuple[str, ...], ...], ...] | None = None,
    ) -> None:
        super().__init__(tasks)
        root = make_backbone()
        root.check_stages()
        self.feature_info = root.feature_info
        self.tree = check_tree(
            tree or make_default_tree(self.task_names, len(self.feature_info)),
            self.task_names,
            len(self.feature_info),
        )
        owners = [{_find_owner(group, self.tree) for group in groups} for groups in self.tree]
        names = [leaf[0] for leaf in self.tree[-1]]
        self.backbones = nn.ModuleDict({name: deepcopy(root) for name in names})
        for name in names[1:]:
            stages = [stage for stage, each in enumerate(owners) if name in each]
            self._get_backbone(name).keep_stages(stages)
        self.heads = make_heads(make_head, self.feature_info, tasks)
        self.shared_features = SharedFeatures()

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features.
        """
        root = self._get_backbone(self.tree[-1][0][0])
        shared = [root.run_stem(image)]
        num_shared = sum(len(groups) == 1 for groups in self.tree)
        for stage in range(num_shared):
            shared.append(root.run_stage(stage, shared[-1]))
        if num_shared:
            del shared[0]  # the first stage alone reads the output of the stem
        shared = self._share_features(shared)
        states = dict.fromkeys(self.task_names, shared[-1])
        levels = [state.feature for state in shared[len(shared) - num_shared :]]
        pyramids = {task: list(levels) for task in self.task_names}
        for stage in range(num_shared, len(self.tree)):
            for group in self.tree[stage]:
                backbone = self._get_backbone(_find_owner(group, self.tree))
                state = backbone.run_stage(stage, states[group[0]])
                for task in group:
                    states[task] = state
                    pyramids[task].append(state.feature)
        return Predictions({task: head(pyramids[task]) for task, head in self.heads.items()})

    def _share_features(self, states: list[StageState]) -> list[StageState]:
        """Mark the maps and tokens that all tasks read as shared features."""
        last = states[-1]
        tokens = [] if last.prefix_tokens is None else [last.prefix_tokens]
        maps = self.shared_features([*(state.feature for state in states), *tokens])
        marked = [
            replace(state, feature=feature) for state, feature in zip(states, maps, strict=False)
        ]
        if tokens:
            marked[-1] = replace(marked[-1], prefix_tokens=maps[-1])
        return marked

    def _get_backbone(self, name: str) -> Backbone:
        backbone = self.backbones[name]
        assert isinstance(backbone, Backbone)
        return backbone

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; stages that all tasks share are shared, stages of several tasks are
            fusion, and stages of one task and heads belong to the task.
        """
        groups: dict[str, list[nn.Parameter]] = {SHARED: [], FUSION: []}
        groups |= {task: list(head.parameters()) for task, head in self.heads.items()}
        for stage, task_groups in enumerate(self.tree):
            for group in task_groups:
                is_shared = len(group) == len(self.task_names)
                name = SHARED if is_shared else group[0] if len(group) == 1 else FUSION
                backbone = self._get_backbone(_find_owner(group, self.tree))
                for module in backbone.get_stage_modules(stage):
                    groups[name] += module.parameters()
        listed = {id(parameter) for parameters in groups.values() for parameter in parameters}
        groups[SHARED] += [each for each in self.backbones.parameters() if id(each) not in listed]
        return groups


def make_default_tree(tasks: Sequence[str], num_stages: int) -> Tree:
    """Return the tree in which tasks share all stages except the last one.

    Args:
        tasks: names of the tasks.
        num_stages: number of stages of the backbone.

    Returns:
        The groups of each stage.

    Example:
        >>> make_default_tree(["depth", "edge"], num_stages=2)
        ((('depth', 'edge'),), (('depth',), ('edge',)))
    """
    return (((tuple(tasks)),),) * (num_stages - 1) + (tuple((task,) for task in tasks),)


def check_tree(
    tree: Sequence[Sequence[Sequence[str]]], tasks: Sequence[str], num_stages: int
) -> Tree:
    """Check that each stage of a tree divides the groups of the stage before.

    Args:
        tree: groups of tasks at each stage.
        tasks: names of all tasks.
        num_stages: number of stages of the backbone.

    Returns:
        The same tree. In each stage, groups and their tasks are in the order of the last stage.

    Raises:
        ConfigError: if the tree is invalid.
    """
    if len(tree) != num_stages:
        raise ConfigError(
            f"decoder.tree: lists the groups of {len(tree)} stages, but the backbone has"
            f" {num_stages}; list the groups of each stage"
        )
    errors = list(_find_tree_errors(tree, tasks))
    if errors:
        raise ConfigError("\n".join(errors))
    order = [task for group in tree[-1] for task in group]
    stages = []
    for groups in tree:
        members = [tuple(task for task in order if task in group) for group in groups]
        stages.append(tuple(sorted(members, key=lambda group: order.index(group[0]))))
    return tuple(stages)


def _find_tree_errors(
    tree: Sequence[Sequence[Sequence[str]]], tasks: Sequence[str]
) -> Iterator[str]:
    """Yield one error message per invalid stage."""
    above: Sequence[Sequence[str]] = [tasks]
    for stage, groups in enumerate(tree):
        where = f"decoder.tree.{stage}"
        names = [name for group in groups for name in group]
        unknown = [name for name in names if name not in tasks]
        if unknown:
            yield f"{where}: no task {unknown[0]!r}, {suggest(unknown[0], tasks)}"
            return
        if sorted(names) != sorted(tasks) or not all(groups):
            yield (
                f"{where}: must contain each of {', '.join(tasks)} once, in groups such as"
                f" {[[*tasks]]}, not {[list(group) for group in groups]}"
            )
            return
        for group in groups:
            if not any(set(group) <= set(parent) for parent in above):
                yield (
                    f"{where}: {', '.join(group)} are in different groups of the stage before;"
                    " tasks cannot be joined again"
                )
        above = groups


def _find_owner(group: Group, tree: Tree) -> str:
    """Return the name of the backbone that contains the stage of a group.

    Backbones are named after the first task of each group of the last stage. The first of those
    inside the group contains the stage.
    """
    return next(leaf[0] for leaf in tree[-1] if leaf[0] in group)
