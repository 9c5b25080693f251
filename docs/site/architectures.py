"""Figures and costs of decoders, computed from the configurations in configs/nyud/."""

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
"""(configuration file, its content)."""


@cache
def load_recipes() -> dict[str, list[Recipe]]:
    """Load the configurations that follow the survey protocol and have no auxiliary tasks.

    Returns:
        {decoder: its configurations}, that with the smallest input first.
    """
    recipes: dict[str, list[Recipe]] = {}
    for file in sorted(RECIPES_FOLDER.glob("*/*.yaml")):
        experiment = load_experiment(file)
        if not experiment.auxiliary_tasks and experiment.protocol == "survey":
            recipes.setdefault(experiment.decoder.name, []).append((file, experiment))
    for decoder_recipes in recipes.values():
        decoder_recipes.sort(key=lambda recipe: recipe[1].input.size)
    return recipes


@cache
def _load_summary(file: Path) -> ModelSummary:
    return summarize(load_experiment(file))


def render_figure(recipe: Recipe) -> str:
    """Render the sharing diagram of a configuration with a caption, as Markdown with SVG."""
    file, experiment = recipe
    structure = _load_summary(file).structure
    label = f"Modules of {experiment.decoder.name}, from the image at the top to the tasks"
    caption = (
        "*Modules from the image at the top to each task, derived from the graph of a forward pass "
        f"of `{file.relative_to(ROOT)}`. Shared modules and fusion modules, which combine features "
        "of several tasks, span all columns; all other modules belong to one task.*"
    )
    return f"{svg.draw_sharing_diagram(structure.rows, structure.labels, label)}\n\n{caption}"


def render_cost_table(recipes: list[Recipe]) -> str:
    """Render a Markdown table of costs with one row per configuration."""
    header = [
        *("configuration", "backbone", "input", "tasks"),
        *("parameters M", "GFLOP", "activations MiB"),
    ]
    rows = []
    for file, experiment in recipes:
        summary = _load_summary(file)
        height, width = summary.input
        rows.append(
            [
                *(f"`{file.relative_to(RECIPES_FOLDER)}`", summary.backbone, f"{height}x{width}"),
                *(str(len(experiment.tasks)), f"{summary.total.parameters / 1e6:.2f}"),
                *(f"{summary.total.gflop:.2f}", f"{summary.activation_mib:.0f}"),
            ]
        )
    note = (
        "Costs are for one image, with two FLOP per multiply-add. Activations are the tensors that "
        "training keeps for the backward pass, in fp32. `tools/summary.py` computes these numbers. "
        "Measured times: [decoders on NYUD-v2](../../comparison.md)."
    )
    return f"{markdown_table([header, *rows], num_text_columns=3)}\n{note}"


def render_recipe(recipe: Recipe) -> str:
    """Render a configuration file, and the command that trains it, as Markdown."""
    path = recipe[0].relative_to(ROOT)
    text = recipe[0].read_text(encoding="utf-8").strip()
    return f'```yaml title="{path}"\n{text}\n```\n\n```\npython tools/train.py {path}\n```'
