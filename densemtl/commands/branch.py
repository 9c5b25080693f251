"""Find out which tasks should share which stages of a backbone, and write a branched network.

Pass one trained single-task run per task; their representations are compared at every stage. Or
pass a single run of all tasks; the images that its tasks find difficult are compared. For each
budget, the tree that separates the most different tasks is printed and written as a configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from densemtl import cli

BUDGETS = (1.5, 2.0, 3.0)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = "configuration of the tasks, which the written files inherit from"
    parser.add_argument("config", type=Path, help=text)
    text = "trained runs: one per task, or one of all tasks"
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=text)
    text = "maximum costs as multiples of one backbone (default: 1.5 2 3)"
    parser.add_argument("--budget", type=float, nargs="+", default=BUDGETS, metavar="B", help=text)
    text = "cost that the budget limits (default: parameters)"
    parser.add_argument(
        "--budget-of", choices=("parameters", "multiply_adds"), default="parameters", help=text
    )
    text = "maximum number of training images (default: 500)"
    parser.add_argument("--images", type=int, default=500, metavar="N", help=text)
    text = "folder of affinity.json, affinity.png and tree_BUDGET.yaml"
    parser.add_argument("--output", type=Path, metavar="FOLDER", required=True, help=text)
    cli.add_trust_argument(parser)
    cli.add_device_argument(parser)
    args = parser.parse_args(argv)
    if args.images < 1 or min(args.budget) < 1:
        parser.error("--images and --budget: must be at least 1")
    return args


def main(argv: list[str] | None = None) -> None:
    """Measure the affinity of the tasks, and write a tree for each budget.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    cli.check_config_path(args.config)
    for run in args.runs:
        cli.check_run_path(run)
    from rich import print as show

    from densemtl.analysis.branch_report import draw_tree, plot_stage_affinity, write_tree_config
    from densemtl.analysis.branch_search import find_tree
    from densemtl.analysis.branching import (
        check_tasks,
        get_backbone,
        measure_branch_costs,
        measure_stage_affinity,
    )
    from densemtl.config.experiment import load_experiment
    from densemtl.config.shipped_configs import find_config
    from densemtl.engine.loading import load_trained_model
    from densemtl.results.terminal_tables import make_matrix_table

    runs = [
        load_trained_model(run, (), args.device, trust_custom_code=args.trust_custom_code)
        for run in args.runs
    ]
    check_tasks(load_experiment(args.config), runs)
    size = runs[0].experiment.input.size
    costs = measure_branch_costs(get_backbone(runs[0]), size, args.budget_of)
    affinity = measure_stage_affinity(runs, args.images)
    args.output.mkdir(parents=True, exist_ok=True)
    affinity.save(args.output / "affinity.json")
    plot_stage_affinity(affinity, args.output / "affinity.png")
    print(f"{affinity.measure} in {affinity.images} training images")
    for index, matrix in enumerate(affinity.stages, start=1):
        show(make_matrix_table(f"stage {index}", affinity.tasks, matrix.tolist()))
    measure = args.budget_of.replace("_", "-")
    for budget in args.budget:
        tree = find_tree(affinity.tasks, affinity.stages, costs, budget)
        file = args.output / f"tree_{budget:g}.yaml"
        write_tree_config(tree, find_config(args.config), file)
        print(
            f"\nbudget {budget:g}: {tree.cost:.2f} times the {measure} of one backbone,"
            f" dissimilarity {tree.dissimilarity:.3f}: {file}\n{draw_tree(tree)}"
        )
