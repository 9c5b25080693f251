"""Figures and costs of architectures, counted on the recipes that lie in configs/nyud/."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import svg

from densemtl.analysis.model_summary import ModelSummary, summarize
from densemtl.config.experiment import ExperimentConfig, load_experiment
from densemtl.results.tables import markdown_table

ROOT = Path(__file__).parents[2]
RECIPES_FOLDER = ROOT / "configs" / "nyud"

Recipe = tuple[Path, ExperimentConfig]


@cache
def load_recipes() -> dict[str, list[Recipe]]:
    """{decoder: the survey's recipes that train it}, that of the smallest input first."""
    found: dict[str, list[Recipe]] = {}
    for file in sorted(RECIPES_FOLDER.glob("*/*.yaml")):
        experiment = load_experiment(file)
        if not experiment.auxiliary_tasks and experiment.protocol == "survey":
            found.setdefault(experiment.decoder.name, []).append((file, experiment))
    for some in found.values():
        some.sort(key=lambda recipe: recipe[1].input.size)
    return found


@cache
def _load_summary(file: Path) -> ModelSummary:
    return summarize(load_experiment(file))


def render_figure(recipe: Recipe) -> str:
    """What of the network is shared."""
    file, experiment = recipe
    drawn = _load_summary(file).structure
    label = f"Modules of {experiment.decoder.name}, from the image down to the tasks"
    caption = (
        "*Modules from the image down to each task, read off the graph of a forward pass of "
        f"`{file.relative_to(ROOT)}`: what all tasks share spans the columns, and so does what "
        "they meet in (fusion); the rest is a task's own.*"
    )
    return f"{svg.draw_sharing_diagram(drawn.rows, drawn.labels, label)}\n\n{caption}"


def render_cost_table(recipes_of_decoder: list[Recipe]) -> str:
    """A line a recipe."""
    header = ["recipe", "backbone", "input", "tasks", "parameters M", "GFLOP", "activations MiB"]
    rows = []
    for file, experiment in recipes_of_decoder:
        summary = _load_summary(file)
        height, width = summary.input
        rows.append(
            [
                *(f"`{file.relative_to(RECIPES_FOLDER)}`", summary.backbone, f"{height}x{width}"),
                *(str(len(experiment.tasks)), f"{summary.total.parameters / 1e6:.2f}"),
                *(f"{summary.total.gflop:.2f}", f"{summary.activation_mib:.0f}"),
            ]
        )
    below = (
        "Of one image; two FLOP a multiply-add; activations are what training keeps for the "
        "backward pass in fp32. Counted by `tools/summary.py`. "
        "Measured times: [architectures compared](../../comparison.md)."
    )
    return f"{markdown_table([header, *rows], num_text_columns=3)}\n{below}"


def render_recipe(located_recipe: Recipe) -> str:
    """The file, and how it is run."""
    file = located_recipe[0].relative_to(ROOT)
    text = located_recipe[0].read_text(encoding="utf-8").strip()
    return f'```yaml title="{file}"\n{text}\n```\n\n```\npython tools/train.py {file}\n```'
