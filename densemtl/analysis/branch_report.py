"""Figure, drawing and configuration of the trees along which tasks share stages."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from densemtl.analysis.branch_search import BranchTree
from densemtl.analysis.branching import StageAffinity
from densemtl.analysis.task_affinity import plot_matrices
from densemtl.io.atomic import atomic_write


def plot_stage_affinity(affinity: StageAffinity, file: Path) -> None:
    """Draw the affinity of the tasks at each stage as heat maps with values.

    Args:
        affinity: result of `measure_stage_affinity`.
        file: image file, written atomically.
    """
    matrices = {
        f"stage {index}": torch.from_numpy(matrix)
        for index, matrix in enumerate(affinity.stages, start=1)
    }
    plot_matrices(matrices, affinity.tasks, file)


def draw_tree(tree: BranchTree) -> str:
    """Draw a tree as text, one line per stage.

    Args:
        tree: the tree.

    Returns:
        Lines with the groups of each stage, from the image to the tasks.

    Example:
        >>> from densemtl.analysis.branch_search import BranchTree
        >>> print(draw_tree(BranchTree(((("a", "b"),), (("a",), ("b",))), 0.1, 1.5)))
        stage 1  [a b]
        stage 2  [a] [b]
    """
    lines = [
        f"stage {index}  " + " ".join(f"[{' '.join(group)}]" for group in groups)
        for index, groups in enumerate(tree.groups, start=1)
    ]
    return "\n".join(lines)


def write_tree_config(tree: BranchTree, config: Path, file: Path) -> None:
    """Write a configuration of the branched network.

    Args:
        tree: the tree.
        config: configuration of the tasks, which the written one inherits from.
        file: output file, written atomically.
    """
    values = {
        "base": str(config.resolve()),
        "decoder": {
            "name": "branched",
            "tree": [[list(group) for group in groups] for groups in tree.groups],
        },
    }
    with atomic_write(file) as tmp_path:
        text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
        tmp_path.write_text(text, encoding="utf-8")
