"""Costs and sharing of an experiment's network, found without data, weights or a forward pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from densemtl.analysis.sharing_diagram import SharingStructure, trace_sharing_structure
from densemtl.config.experiment import ExperimentConfig
from densemtl.factory import build_model, build_tasks
from densemtl.models.complexity import count_flops, trace_training_forward
from densemtl.results.tables import terminal_table
from densemtl.types import Size

GIGA = 1e9
MEBI = 2**20


@dataclass(frozen=True)
class Cost:
    """Of a whole network or of one parameter group.

    Attributes:
        parameters: how many numbers.
        gflop: of one image, 2 FLOP a multiply-add; see `complexity.count_flops`.
    """

    parameters: int
    gflop: float


@dataclass(frozen=True)
class ModelSummary:
    """An experiment's network.

    Attributes:
        architecture: the decoder's name.
        backbone: the timm model's.
        head: the head's.
        input: (height, width) that the numbers are for.
        total: the sum of all groups.
        groups: {"shared", each task, auxiliary ones too, "fusion": its cost}.
        activation_mib: what one image keeps in memory in training; see
            `complexity.trace_training_forward`.
        structure: what is shared, drawn by `str`; see `trace_sharing_structure`.
    """

    architecture: str
    backbone: str
    head: str
    input: Size
    total: Cost
    groups: dict[str, Cost]
    activation_mib: float
    structure: SharingStructure

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all but the structure, the numbers of the whole beside the others."""
        values = asdict(self)
        values.pop("structure")
        return values.pop("total") | values


def summarize(experiment: ExperimentConfig) -> ModelSummary:
    """Count and draw the network that an experiment would train.

    Raises:
        ConfigError: a decoder's option is out of range.
        ModelError: backbone, decoder and head do not go together.
    """
    model = build_model(experiment, build_tasks(experiment), pretrained=False).to("meta")
    size = experiment.input.size
    flop = count_flops(model, size)
    parameters = {
        group: sum(parameter.numel() for parameter in members)
        for group, members in model.parameter_groups().items()
    }
    groups = {
        group: Cost(parameters.get(group, 0), flop.get(group, 0) / GIGA)
        for group in {**parameters, **flop}
    }
    step = trace_training_forward(model, size)
    return ModelSummary(
        architecture=experiment.decoder.name,
        backbone=experiment.backbone.name,
        head=experiment.head.name,
        input=size,
        total=Cost(sum(parameters.values()), sum(flop.values()) / GIGA),
        groups=groups,
        activation_mib=step.activation_bytes / MEBI,
        structure=trace_sharing_structure(model, step.image, step.predictions),
    )


def make_cost_table(summary: ModelSummary) -> Group:
    """The numbers on the terminal: a line a group."""
    table = terminal_table(["group", "parameters", "GFLOP"])
    for group, cost in summary.groups.items():
        table.add_row(group, *_format_cells(cost))
    table.add_section()
    table.add_row("all", *_format_cells(summary.total), style="bold")
    height, width = summary.input
    parts = (summary.architecture, summary.backbone, summary.head, f"{height} x {width}")
    below = f"{summary.activation_mib:,.1f} MiB of activations an image in training (fp32)"
    return Group(Text(", ".join(parts), style="bold"), table, Text(below))


def _format_cells(cost: Cost) -> tuple[str, str]:
    return f"{cost.parameters:,}", f"{cost.gflop:,.2f}"
