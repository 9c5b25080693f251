"""The wall: what is shared spans all columns, and every brick lies below what it needs."""

from __future__ import annotations

from textwrap import dedent

from densemtl.analysis.sharing_diagram import trace_sharing_structure
from densemtl.analysis.text_diagram import draw_rows
from densemtl.factory import build_model, build_tasks
from densemtl.models.complexity import trace_training_forward
from tests.helpers.experiments import make_tiny_experiment


def draw(*overrides: str) -> str:
    experiment = make_tiny_experiment(*overrides)
    model = build_model(experiment, build_tasks(experiment), pretrained=False).to("meta")
    step = trace_training_forward(model, (64, 64))
    return str(trace_sharing_structure(model, step.image, step.predictions))


def bricks(drawing: str) -> list[list[str]]:
    """The texts of each course."""
    rows = [line for line in drawing.splitlines() if line.startswith("│")]
    return [[text.strip() for text in row.strip("│").split("│")] for row in rows]


def test_a_shared_backbone_stands_above_the_heads() -> None:
    assert draw() == dedent("""\
                       image
        ┌─────────────────────────────────┐
        │ shared: backbone                │
        ├────────────────┬────────────────┤
        │ heads          │ heads          │
        └────────────────┴────────────────┘
          semseg           depth""")


def test_a_single_task_has_one_column() -> None:
    drawing = draw("decoder.name=single_task", "tasks=[depth]")
    assert bricks(drawing) == [["shared: backbone"], ["heads"]]
    assert drawing.endswith("\n  depth")


def test_parallel_networks_meet_between_stages() -> None:
    courses = bricks(draw("decoder.name=cross_stitch", "head={name: deeplabv3, width: 8}"))
    assert courses[1::2] == [[f"fusion: units.{stage}"] for stage in range(4)]
    assert all(left == right for left, right in courses[::2])
    assert [own[0].rsplit(".")[-1] for own in courses[2:-1:2]] == ["layer2", "layer3", "layer4"]
    assert courses[-1] == ["heads", "heads"]


def test_what_tasks_have_in_common_lies_between_what_is_their_own() -> None:
    courses = bricks(draw("decoder.name=mtan", "head={name: deeplabv3, width: 8}"))
    assert courses[0] == ["shared: backbone"]
    assert courses[1::2] == [[f"attention.{stage}"] * 2 for stage in range(3)] + [
        ["attention.3, heads"] * 2
    ]
    assert courses[2::2] == [[f"shared: refine.{stage}"] for stage in range(3)]


def test_auxiliary_tasks_have_columns_that_end_early() -> None:
    drawing = draw("decoder.name=pad_net", "tasks=[depth]", "auxiliary_tasks=[edge]")
    assert bricks(drawing) == [
        ["shared: backbone, mix"],
        ["initial_features, initial_heads"] * 2,
        ["fusion: distillation"],
        ["final_heads", ""],
    ]
    assert drawing.splitlines()[-1].split() == ["depth", "edge", "(auxiliary)"]


def test_modules_that_are_alike_share_a_name() -> None:
    courses = bricks(draw("decoder.name=cgc"))
    assert courses[0] == ["shared: backbone, levels.0…3.layers.0.experts.shared_1"]
    assert courses[2] == ["fusion: levels.0…3.layers.0.gates"]
    assert courses[3] == ["heads", "heads"]


def test_a_wall_has_straight_sides_and_breaks_long_names() -> None:
    names = [f"task{i}" for i in range(7)]
    long = "shared: " + ", ".join(f"backbone.stage{i}" for i in range(9))
    _, *rows, feet = draw_rows([[long], ["a.b, c.d, e.f, g.h", *names[1:]]], names).splitlines()
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 1 + 2 + 1 + 2 + 1
    assert [feet.index(name) for name in names] == [2 + 17 * i for i in range(7)]
