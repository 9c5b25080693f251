"""Costs and sharing of a model, computed on the meta device without data or weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from densemtl.analysis.sharing_diagram import SharingStructure, trace_sharing_structure
from densemtl.config.experiment import ExperimentConfig
from densemtl.engine.build_distillation import (
    TeacherCost,
    build_distillation,
    compute_teacher_costs,
)
from densemtl.factory import build_model, build_tasks
from densemtl.models.complexity import count_flops, trace_training_forward
from densemtl.models.trainable_parameters import count_trainable
from densemtl.results.terminal_tables import terminal_table
from densemtl.types import Size

GIGA = 1e9
MEBI = 2**20


@dataclass(frozen=True)
class Cost:
    """Cost of a whole model or of one parameter group.

    Attributes:
        parameters: number of parameters.
        gmac: 10^9 multiply-adds of one image, which many papers print as FLOPs.
        gflop: GFLOP of one image, 2 FLOP per multiply-add; see `complexity.count_flops`.
    """

    parameters: int
    gmac: float
    gflop: float

    @classmethod
    def from_flop(cls, parameters: int, flop: int) -> Cost:
        """Create the cost from a number of FLOP.

        Args:
            parameters: number of parameters.
            flop: FLOP of one image, 2 per multiply-add.

        Returns:
            The cost.
        """
        return cls(parameters, flop / 2 / GIGA, flop / GIGA)


@dataclass(frozen=True)
class ModelSummary:
    """Costs and sharing structure of the model of an experiment.

    Attributes:
        architecture: name of the decoder.
        backbone: name of the timm model.
        head: name of the head.
        input: input size (height, width) in pixels that the costs are for.
        total: sum of all groups.
        groups: {group: cost}; the groups are "shared", each task, each auxiliary task, "fusion".
        trainable: numbers of trained parameters; see `trainable_parameters.count_trainable`.
        activation_mib: activations of one image during training in MiB; see
            `complexity.trace_training_forward`.
        teachers: {teacher of features: cost}, which only training has and no other number includes.
        structure: sharing structure, drawn by `str`; see `trace_sharing_structure`.
    """

    architecture: str
    backbone: str
    head: str
    input: Size
    total: Cost
    groups: dict[str, Cost]
    trainable: dict[str, int]
    activation_mib: float
    teachers: Mapping[str, TeacherCost]
    structure: SharingStructure

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON.

        Returns:
            All attributes except `structure`; the fields of `total` are on the top level.
        """
        values = asdict(self)
        values.pop("structure")
        total: dict[str, Any] = values.pop("total")
        return total | values


def summarize(experiment: ExperimentConfig) -> ModelSummary:
    """Summarize the model that an experiment would train.

    Args:
        experiment: a validated configuration.

    Returns:
        Costs and sharing structure at the input size of the experiment.

    Raises:
        ConfigError: if an option of the decoder is out of range.
        ModelError: if backbone, decoder and head cannot be combined.

    Example:
        >>> from densemtl.analysis.model_summary import summarize
        >>> from densemtl.config.experiment import validate_experiment
        >>> from densemtl.config.yaml_loader import apply_overrides
        >>> values = {
        ...     "tasks": ["semseg", "depth"],
        ...     "data": {"name": "synthetic"},
        ...     "input": {"size": [64, 64]},
        ...     "backbone": {"name": "test_resnet", "pretrained": False},
        ...     "decoder": {"name": "hard_sharing"},
        ...     "head": {"name": "linear"},
        ... }
        >>> summary = summarize(validate_experiment(apply_overrides(values, [], "example")))
        >>> {group: cost.parameters for group, cost in summary.groups.items()}
        {'shared': 372688, 'semseg': 5535, 'depth': 369}
        >>> print(summary.structure)
                       image
        ┌─────────────────────────────────┐
        │ shared: backbone                │
        ├────────────────┬────────────────┤
        │ heads          │ heads          │
        └────────────────┴────────────────┘
          semseg           depth
    """
    built = build_model(experiment, build_tasks(experiment), pretrained=False)
    teachers = compute_teacher_costs(build_distillation(experiment, built, load_weights=False))
    model = built.to("meta")
    size = experiment.input.size
    flop = count_flops(model, size)
    parameters = {
        group: sum(parameter.numel() for parameter in members)
        for group, members in model.parameter_groups().items()
    }
    groups = {
        group: Cost.from_flop(parameters.get(group, 0), flop.get(group, 0))
        for group in {**parameters, **flop}
    }
    step = trace_training_forward(model, size)
    return ModelSummary(
        architecture=experiment.decoder.name,
        backbone=experiment.backbone.name,
        head=experiment.head.name,
        input=size,
        total=Cost.from_flop(sum(parameters.values()), sum(flop.values())),
        groups=groups,
        trainable=count_trainable(model),
        activation_mib=step.activation_bytes / MEBI,
        teachers=teachers,
        structure=trace_sharing_structure(model, step.image, step.predictions),
    )


def make_cost_table(summary: ModelSummary) -> Group:
    """Format a summary for the terminal.

    Args:
        summary: summary of a model.

    Returns:
        A title, a table with one row per parameter group, the numbers of trained parameters if some
        are frozen, the size of the activations, and the teachers of features.
    """
    table = terminal_table(["group", "parameters", "GMAC", "GFLOP"])
    for group, cost in summary.groups.items():
        table.add_row(group, *_format_cells(cost))
    table.add_section()
    table.add_row("all", *_format_cells(summary.total), style="bold")
    height, width = summary.input
    parts = (summary.architecture, summary.backbone, summary.head, f"{height} x {width}")
    below = f"{summary.activation_mib:,.1f} MiB of activations per image in training (fp32)"
    below += "".join(f"\ndistill: {name}: {cost}" for name, cost in summary.teachers.items())
    counts = {name: count for name, count in summary.trainable.items() if count}
    if (trained := sum(counts.values())) < summary.total.parameters:
        listed = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in counts.items())
        below = f"{trained:,} parameters are trained: {listed}\n{below}"
    return Group(Text(", ".join(parts), style="bold"), table, Text(below))


def _format_cells(cost: Cost) -> tuple[str, str, str]:
    return f"{cost.parameters:,}", f"{cost.gmac:,.2f}", f"{cost.gflop:,.2f}"
