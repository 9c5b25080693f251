"""Figures and costs of architectures, counted on the recipes that lie in configs/nyud/."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import svg

from densemtl.config.experiment import Experiment, load_experiment
from densemtl.analysis.model_summary import Summary, summarise
from densemtl.results.tables import markdown_table

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "configs" / "nyud"

Recipe = tuple[Path, Experiment]


@cache
def recipes() -> dict[str, list[Recipe]]:
    """{decoder: the survey's recipes that train it}, that of the smallest input first."""
    found: dict[str, list[Recipe]] = {}
    for file in sorted(RECIPES.glob("*/*.yaml")):
        experiment = load_experiment(file)
        if not experiment.auxiliary_tasks and experiment.protocol == "survey":
            found.setdefault(experiment.decoder.name, []).append((file, experiment))
    for some in found.values():
        some.sort(key=lambda recipe: recipe[1].input.size)
    return found


@cache
def _summary(file: Path) -> Summary:
    return summarise(load_experiment(file))


def figure(recipe: Recipe) -> str:
    """What of the network is shared."""
    file, experiment = recipe
    drawn = _summary(file).structure
    label = f"Modules of {experiment.decoder.name}, from the image down to the tasks"
    told = (
        "*Modules from the image down to each task, read off the graph of a forward pass of "
        f"`{file.relative_to(ROOT)}`: what all tasks share spans the columns, and so does what "
        "they meet in (fusion); the rest is a task's own.*"
    )
    return f"{svg.wall(drawn.courses, drawn.feet, label)}\n\n{told}"


def cost_table(some: list[Recipe]) -> str:
    """A line a recipe."""
    header = ["recipe", "backbone", "input", "tasks", "parameters M", "GFLOP", "activations MiB"]
    rows = []
    for file, experiment in some:
        told = _summary(file)
        height, width = told.input
        rows.append(
            [
                *(f"`{file.relative_to(RECIPES)}`", told.backbone, f"{height}x{width}"),
                *(str(len(experiment.tasks)), f"{told.whole.parameters / 1e6:.2f}"),
                *(f"{told.whole.gflop:.2f}", f"{told.activation_mib:.0f}"),
            ]
        )
    below = (
        "Of one image; two FLOP a multiply-add; activations are what training keeps for the "
        "backward pass in fp32. Counted by `tools/summary.py`. "
        "Measured times: [architectures compared](../../comparison.md)."
    )
    return f"{markdown_table([header, *rows], num_text_columns=3)}\n{below}"


def recipe(one: Recipe) -> str:
    """The file, and how it is run."""
    file = one[0].relative_to(ROOT)
    text = one[0].read_text(encoding="utf-8").strip()
    return f'```yaml title="{file}"\n{text}\n```\n\n```\npython tools/train.py {file}\n```'
