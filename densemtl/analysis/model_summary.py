"""What an experiment's network costs and shares, told without data, weights or running it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.text import Text

from densemtl.factory import build_model, build_tasks
from densemtl.config.experiment import Experiment
from densemtl.models.complexity import count_flop, train_pass
from densemtl.analysis.sharing_diagram import Structure, find_structure
from densemtl.results.tables import terminal_table
from densemtl.types import Size

GIGA = 1e9
MEBI = 2**20


@dataclass(frozen=True)
class Cost:
    """Of a whole network or of one parameter group.

    Attributes:
        parameters: how many numbers.
        gflop: of one image, 2 FLOP a multiply-add; see `costs.count_flop`.
    """

    parameters: int
    gflop: float


@dataclass(frozen=True)
class Summary:
    """An experiment's network.

    Attributes:
        architecture: the decoder's name.
        backbone: the timm model's.
        head: the head's.
        input: (height, width) that the numbers are for.
        whole: the sum of all groups.
        groups: {"shared", each task, auxiliary ones too, "fusion": its cost}.
        activation_mib: what one image keeps in memory in training; see `costs.train_pass`.
        structure: what is shared, drawn by `str`; see `find_structure`.
    """

    architecture: str
    backbone: str
    head: str
    input: Size
    whole: Cost
    groups: dict[str, Cost]
    activation_mib: float
    structure: Structure

    def record(self) -> dict[str, Any]:
        """For JSON: all but the structure, the numbers of the whole beside the others."""
        values = asdict(self)
        values.pop("structure")
        return values.pop("whole") | values


def summarise(experiment: Experiment) -> Summary:
    """Count and draw the network that an experiment would train.

    Raises:
        ConfigError: a decoder's option is out of range.
        ModelError: backbone, decoder and head do not go together.
    """
    model = build_model(experiment, build_tasks(experiment), pretrained=False).to("meta")
    size = experiment.input.size
    flop = count_flop(model, size)
    parameters = {
        group: sum(each.numel() for each in members)
        for group, members in model.parameter_groups().items()
    }
    groups = {
        group: Cost(parameters.get(group, 0), flop.get(group, 0) / GIGA)
        for group in {**parameters, **flop}
    }
    step = train_pass(model, size)
    return Summary(
        architecture=experiment.decoder.name,
        backbone=experiment.backbone.name,
        head=experiment.head.name,
        input=size,
        whole=Cost(sum(parameters.values()), sum(flop.values()) / GIGA),
        groups=groups,
        activation_mib=step.kept / MEBI,
        structure=find_structure(model, step.image, step.predictions),
    )


def cost_table(summary: Summary) -> Group:
    """The numbers on the terminal: a line a group."""
    table = terminal_table(["group", "parameters", "GFLOP"])
    for group, cost in summary.groups.items():
        table.add_row(group, *_cells(cost))
    table.add_section()
    table.add_row("all", *_cells(summary.whole), style="bold")
    height, width = summary.input
    parts = (summary.architecture, summary.backbone, summary.head, f"{height} x {width}")
    below = f"{summary.activation_mib:,.1f} MiB of activations an image in training (fp32)"
    return Group(Text(", ".join(parts), style="bold"), table, Text(below))


def _cells(cost: Cost) -> tuple[str, str]:
    return f"{cost.parameters:,}", f"{cost.gflop:,.2f}"
