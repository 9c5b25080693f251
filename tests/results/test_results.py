"""Results files: comparability checks, and tables of results."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from densemtl.errors import ResultsError
from densemtl.results import tables
from densemtl.results.baselines import add_baselines
from densemtl.results.results import Results, TaskResult, load_results
from densemtl.results.terminal_tables import make_run_table
from tests.helpers.rendering import render


def results(*tasks: str, value: float | None = 50.0, **changes: Any) -> Results:
    values: dict[str, Any] = {
        "run": {
            "dataset": "nyud",
            "backbone": "resnet18",
            "decoder": "single_task",
            "head": "fpn",
            "balancing": "fixed",
        },
        "tasks": {
            task: TaskResult(
                primary_metric={"semseg": "mIoU", "depth": "rmse"}[task],
                higher_is_better=task == "semseg",
                metrics={"mIoU": value, "rmse": value, "nothing": None},
            )
            for task in tasks
        },
        "protocol": "survey",
        "split": "val",
        "split_fingerprint": "abc",
        "images": 654,
        "weights_hash": "w",
        "seed": 0,
        "config_hash": "f",
        "versions": {},
    }
    return Results(**{**values, **changes})


@pytest.fixture
def singles(tmp_path: Path) -> dict[str, Path]:
    files = {task: tmp_path / f"{task}.json" for task in ("semseg", "depth")}
    for task, file in files.items():
        results(task, value=40.0).save(file)
    return files


def test_delta_m_by_hand(singles: dict[str, Path]) -> None:
    compared = add_baselines(results("semseg", "depth", value=50.0), singles)
    assert compared.tasks["semseg"].delta == pytest.approx(25.0)
    assert compared.tasks["depth"].delta == pytest.approx(-25.0)
    assert compared.delta_m == pytest.approx(0.0)
    assert compared.baselines["depth"].value == 40.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "modern"}, "its protocol is modern, but that of this run is survey"),
        ({"split_fingerprint": "xyz"}, "its split is xyz"),
        ({"run": {"dataset": "pascal_context", "backbone": "resnet18"}}, "its dataset is pascal"),
        ({"run": {"dataset": "nyud", "backbone": "resnet50"}}, "its backbone is resnet50"),
        ({"complete": False}, "stopped early"),
    ],
)
def test_baselines_with_other_settings_are_rejected(
    singles: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    results("depth", value=40.0, **change).save(singles["depth"])
    with pytest.raises(ResultsError, match=message) as error:
        add_baselines(results("semseg", "depth"), singles)
    assert str(singles["depth"]) in str(error.value)


@pytest.mark.parametrize("value", [0.0, None])
def test_task_without_defined_delta_is_left_out(singles: dict[str, Path], value: Any) -> None:
    results("depth", value=value).save(singles["depth"])
    compared = add_baselines(results("semseg", "depth"), singles)
    assert compared.delta_m == pytest.approx(25.0)
    assert (compared.full_delta_m, compared.tasks["depth"].delta) == (None, None)
    compared.save(singles["semseg"])
    assert load_results(singles["semseg"]) == compared
    text = render(make_run_table(compared))
    assert "Delta_m leaves out depth: a value is not finite, or the single-task value is 0" in text
    assert "+25.00" in text
    assert "Delta_m" not in tables.to_markdown(tables.group_by_seed([compared]))


def test_run_without_any_defined_delta_has_a_table(singles: dict[str, Path]) -> None:
    compared = add_baselines(results("semseg", "depth", value=None), singles)
    assert compared.delta_m is None
    assert "leaves out semseg, depth" in render(make_run_table(compared))


def test_complete_delta_m_has_no_note(singles: dict[str, Path]) -> None:
    compared = add_baselines(results("semseg", "depth"), singles)
    assert compared.full_delta_m == compared.delta_m
    assert "leaves out" not in render(make_run_table(compared))


def test_baseline_with_other_image_count_is_rejected(singles: dict[str, Path]) -> None:
    """An example are edges that are scored on a part of the split."""
    ours = results("semseg", "depth")
    depth = ours.tasks["depth"]

    def of(images: int) -> TaskResult:
        return depth.model_copy(update={"metrics": {**depth.metrics, "images": images}})

    results("depth").model_copy(update={"tasks": {"depth": of(2498)}}).save(singles["depth"])
    same = ours.model_copy(update={"tasks": {**ours.tasks, "depth": of(2498)}})
    assert add_baselines(same, singles).delta_m is not None
    other = ours.model_copy(update={"tasks": {**ours.tasks, "depth": of(5105)}})
    message = r"depth\.json: .* scored on 2498 images, but this run on 5105"
    with pytest.raises(ResultsError, match=message):
        add_baselines(other, singles)


def test_multi_task_run_is_rejected_as_baseline(singles: dict[str, Path]) -> None:
    results("semseg", "depth").save(singles["depth"])
    with pytest.raises(ResultsError, match="not a single-task run of 'depth'"):
        add_baselines(results("semseg", "depth"), singles)


def test_missing_baseline_is_named(singles: dict[str, Path]) -> None:
    del singles["depth"]
    with pytest.raises(ResultsError, match="depth"):
        add_baselines(results("semseg", "depth"), singles)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    written = results("semseg", "depth")
    written.save(tmp_path / "results.json")
    assert load_results(tmp_path) == written == load_results(tmp_path / "results.json")


@pytest.mark.parametrize("text", ["", "{}", "[1", json.dumps({"format": 1, "tasks": 3})])
def test_corrupt_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(ResultsError, match=r"results\.json: not a valid results file"):
        load_results(file)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"step": 10**30},
        {"step": -1},
        {"seconds": float("nan")},
        {"latest": {"semseg": float("inf")}},
    ],
)
def test_impossible_values_and_other_formats_are_rejected(
    singles: dict[str, Path], change: dict[str, Any]
) -> None:
    file = next(iter(singles.values()))
    file = file / "results.json" if file.is_dir() else file
    load_results(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ResultsError, match=f"not a valid results file: .*{next(iter(change))}"):
        load_results(file)


def test_metric_that_is_nan_is_rejected(singles: dict[str, Path]) -> None:
    file = next(iter(singles.values()))
    file = file / "results.json" if file.is_dir() else file
    values = json.loads(file.read_text())
    (task,) = values["tasks"].values()
    task["metrics"] = dict.fromkeys(task["metrics"], float("nan"))
    file.write_text(json.dumps(values))
    with pytest.raises(ResultsError, match=r"not a valid results file: .*finite"):
        load_results(file)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"results\.json: cannot be read: No such file"):
        load_results(tmp_path / "results.json")


def seeds() -> list[Results]:
    return [
        results("semseg", value=value, seed=seed, delta_m=seed + 1.0)
        for seed, value in enumerate((40.0, 42.0))
    ]


def test_seeds_form_one_row_with_mean_and_std() -> None:
    (row,) = tables.group_by_seed(seeds())
    assert row.num_seeds == 2
    text = tables.to_markdown([row])
    assert "| 41 ± 1.4 | 1.5 ± 0.71 |" in text
    assert text.splitlines()[0].endswith("| semseg mIoU ↑ | Delta_m % ↑ |")


def test_runs_of_one_seed_are_not_averaged() -> None:
    short = results("semseg", value=40.0, config_hash="aaaa")
    longer = results("semseg", value=50.0, config_hash="bbbb")
    rows = tables.group_by_seed([short, longer, short])
    names = [row.name.rpartition(", ")[2] for row in rows]
    assert names == ["config aaaa", "config bbbb"]
    assert [row.cells["semseg mIoU ↑"] for row in rows] == [(40.0,), (50.0,)]
    (row,) = tables.group_by_seed([short, short])
    assert row.num_seeds == 1


def test_costs_are_optional_columns() -> None:
    run = results("semseg", parameters=11_500_000, gflop=3.25, seconds_per_step=0.5)
    header, _, line = tables.to_markdown(tables.group_by_seed([run], costs=True)).splitlines()
    assert header.endswith("| parameters M | GFLOP | s/step |")
    assert line.endswith("| 11.5 | 3.25 | 0.5 |")
    assert "GFLOP" not in tables.to_markdown(tables.group_by_seed([run]))
    assert "GFLOP" not in tables.to_markdown(tables.group_by_seed([results("semseg")], costs=True))


def test_latex_escapes_and_csv_keeps_all_digits() -> None:
    rows = tables.group_by_seed(seeds())
    latex = tables.to_latex(rows)
    assert r"Delta\_m \% $\uparrow$" in latex
    assert r"41 $\pm$ 1.4" in latex
    header, row = csv.reader(io.StringIO(tables.to_csv(rows)))
    assert dict(zip(header, row, strict=True))["semseg mIoU ↑ mean"] == "41.0"


def test_incomplete_runs_form_separate_rows() -> None:
    rows = tables.group_by_seed([results("semseg"), results("semseg", complete=False)])
    assert [row.name.endswith("stopped early") for row in rows] == [False, True]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1 is no JSON"),
        ('{"run": {},\n 1}', "line 2, column 2 is no JSON"),
        ('{"run": 3}', "run: Input should be a valid dictionary, not 3"),
    ],
)
def test_malformed_results_are_explained_without_texts_of_libraries(tmp_path, text, reason):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError) as error:
        load_results(tmp_path)
    assert str(error.value) == f"{tmp_path}/results.json: not a valid results file: {reason}"
