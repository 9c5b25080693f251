"""Tests of the sharing diagram: shared blocks span all columns, blocks are below their inputs."""

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


def parse_blocks(drawing: str) -> list[list[str]]:
    """Return the texts of the blocks of each row."""
    rows = [line for line in drawing.splitlines() if line.startswith("│")]
    return [[text.strip() for text in row.strip("│").split("│")] for row in rows]


def test_shared_backbone_is_above_the_heads() -> None:
    assert draw() == dedent("""\
                       image
        ┌─────────────────────────────────┐
        │ shared: backbone                │
        ├────────────────┬────────────────┤
        │ heads          │ heads          │
        └────────────────┴────────────────┘
          semseg           depth""")


def test_single_task_has_one_column() -> None:
    drawing = draw("decoder.name=single_task", "tasks=[depth]")
    assert parse_blocks(drawing) == [["shared: backbone"], ["heads"]]
    assert drawing.endswith("\n  depth")


def test_cross_stitch_has_fusion_blocks_between_stages() -> None:
    rows = parse_blocks(draw("decoder.name=cross_stitch", "head={name: deeplabv3, width: 8}"))
    assert rows[1::2] == [[f"fusion: units.{stage}"] for stage in range(4)]
    assert all(left == right for left, right in rows[::2])
    assert [row[0].rsplit(".")[-1] for row in rows[2:-1:2]] == ["layer2", "layer3", "layer4"]
    assert rows[-1] == ["heads", "heads"]


def test_mtan_has_shared_blocks_between_blocks_of_tasks() -> None:
    rows = parse_blocks(draw("decoder.name=mtan", "head={name: deeplabv3, width: 8}"))
    assert rows[0] == ["shared: backbone"]
    assert rows[1::2] == [[f"attention.{stage}"] * 2 for stage in range(3)] + [
        ["attention.3, heads"] * 2
    ]
    assert rows[2::2] == [[f"shared: refine.{stage}"] for stage in range(3)]


def test_columns_of_auxiliary_tasks_end_early() -> None:
    drawing = draw("decoder.name=pad_net", "tasks=[depth]", "auxiliary_tasks=[edge]")
    assert parse_blocks(drawing) == [
        ["shared: backbone, mix"],
        ["initial_features, initial_heads"] * 2,
        ["fusion: distillation"],
        ["final_heads", ""],
    ]
    assert drawing.splitlines()[-1].split() == ["depth", "edge", "(auxiliary)"]


def test_similar_module_names_are_joined_to_ranges() -> None:
    rows = parse_blocks(draw("decoder.name=cgc"))
    assert rows[0] == ["shared: backbone, levels.0…3.layers.0.experts.shared_1"]
    assert rows[2] == ["fusion: levels.0…3.layers.0.gates"]
    assert rows[3] == ["heads", "heads"]


def test_draw_rows_wraps_long_texts_in_lines_of_equal_length() -> None:
    names = [f"task{i}" for i in range(7)]
    long = "shared: " + ", ".join(f"backbone.stage{i}" for i in range(9))
    _, *rows, labels = draw_rows([[long], ["a.b, c.d, e.f, g.h", *names[1:]]], names).splitlines()
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 1 + 2 + 1 + 2 + 1
    assert [labels.index(name) for name in names] == [2 + 17 * i for i in range(7)]
