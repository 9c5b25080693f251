"""Tests of the report on runs with given metrics."""

from __future__ import annotations

import csv
import io
import statistics
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from densemtl.benchmark.aggregation import collect_results
from densemtl.benchmark.grid import BenchmarkPlan
from densemtl.benchmark.plots import plot_validation_curves
from densemtl.benchmark.report import write_report
from densemtl.benchmark.run_status import MEMORY_NAME, write_failure
from densemtl.errors import ResultsError
from densemtl.io.atomic import write_json
from densemtl.results.results import RESULTS_FILE, load_results
from tests.helpers.fake_benchmark_runs import make_tiny_plan, write_finished_run

VALUES = {"hard_sharing": (0.5, 0.52), "cross_stitch": (0.6, 0.64)}


def make_finished_plan(folder: Path, **values: Any) -> BenchmarkPlan:
    """Write finished runs of two decoders and two seeds; baselines have semseg 0.5 and depth 1."""
    plan = make_tiny_plan(folder, overrides=["baselines=auto"], seeds=[0, 1], **values)
    for run in plan.baselines:
        write_finished_run(
            run, {run.experiment.list_task_names()[0]: 0.5 if "semseg" in run.title else 1.0}
        )
    for run in plan.runs:
        semseg = VALUES[run.experiment.decoder.name][run.experiment.seed]
        write_finished_run(run, {"semseg": semseg, "depth": 0.9 + 0.1 * run.experiment.seed})
        write_json(run.folder / MEMORY_NAME, {"peak_rss_mib": 100.0 + run.experiment.seed})
    return plan


def write_texts(plan: BenchmarkPlan, folder: Path, panels: bool = False) -> dict[str, str]:
    """Write the report and return {file name: content} of its text files."""
    write_report(plan, folder, "a <title>", panels)
    return {file.name: file.read_text() for file in folder.iterdir() if file.suffix != ".png"}


def parse_table(markdown: str) -> list[dict[str, str]]:
    """Return one dictionary per row of a Markdown table."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, line, strict=True)) for line in body]


class Page(HTMLParser):
    """Parser that collects the references of a page and the text of its table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_table_has_means_and_standard_deviations_over_seeds(tmp_path: Path) -> None:
    texts = write_texts(make_finished_plan(tmp_path), tmp_path / "report")
    single, hard, cross = parse_table(texts["table.md"])
    assert [row["run"] for row in (single, hard, cross)] == [
        "single tasks",
        "hard_sharing",
        "cross_stitch",
    ]
    assert cross["semseg s ↑"] == f"0.62 ± {statistics.stdev([0.6, 0.64]):.2g}"
    assert cross["peak RSS MiB"] == "100.5 ± 0.71"
    assert hard["depth d ↓"] == "0.95 ± 0.071"
    assert hard["seeds"] == "2"
    assert hard["GFLOP"] == "0.5 ± 0"
    # The gains in percent are 0 and 4 for semseg, 10 and 0 for depth; Delta_m is their mean.
    assert hard["Delta_m % ↑"] == f"3.5 ± {statistics.stdev([5, 2]):.2g}"


def test_single_task_baselines_are_one_row_with_summed_costs(tmp_path: Path) -> None:
    texts = write_texts(make_finished_plan(tmp_path), tmp_path / "report")
    single = parse_table(texts["table.md"])[0]
    assert single["semseg s ↑"] == "0.5 ± 0"
    assert single["depth d ↓"] == "1 ± 0"
    assert single["GFLOP"] == "1 ± 0"
    assert single["parameters M"] == "2 ± 0"
    assert single["Delta_m % ↑"] == single["peak RSS MiB"] == ""


def test_all_formats_of_the_table_agree(tmp_path: Path) -> None:
    texts = write_texts(make_finished_plan(tmp_path), tmp_path / "report")
    cross = list(csv.DictReader(io.StringIO(texts["table.csv"])))[2]
    assert float(cross["semseg s ↑ mean"]) == pytest.approx(0.62)
    assert float(cross["semseg s ↑ std"]) == pytest.approx(statistics.stdev([0.6, 0.64]))
    assert r"cross\_stitch & 2 & 0.62 $\pm$ 0.028" in texts["table.tex"]
    cells = Page(texts["report.html"]).cells
    for row in (*parse_table(texts["table.md"]), *parse_table(texts["differences.md"])):
        for cell in row.values():
            assert not cell or cell in cells


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    """The differences are 0.6 - 0.5 and 0.64 - 0.52: mean 0.11, s = 0.0141, and t(1) = 12.706."""
    texts = write_texts(make_finished_plan(tmp_path), tmp_path / "report")
    rows = {row["metric"]: row for row in parse_table(texts["differences.md"])}
    assert set(rows) == {"semseg s ↑", "depth d ↓", "Delta_m % ↑"}
    semseg = rows["semseg s ↑"]
    assert (semseg["run"], semseg["against"]) == ("cross_stitch", "hard_sharing")
    assert (semseg["seeds"], semseg["difference"]) == ("2", "+0.11")
    assert semseg["95 % t"] == "-0.01706 to +0.2371"
    assert semseg["95 % bootstrap-t"] == ""
    assert semseg["verdict"] == "not significant"
    assert "9 times its standard deviation" in texts["differences.md"]
    first = next(csv.DictReader(io.StringIO(texts["differences.csv"])))
    assert float(first["t low"]) == pytest.approx(0.11 - 12.7062 * 0.01, abs=1e-5)


def test_balancing_methods_are_compared_with_the_reference_method(tmp_path: Path) -> None:
    plan = make_tiny_plan(
        tmp_path, decoders=["hard_sharing"], balancing=["gls", "fixed"], seeds=[0, 1]
    )
    for run in plan.runs:
        gain = 0.25 if run.experiment.balancing.name == "gls" else 0.0
        write_finished_run(run, {"semseg": 0.5 + gain, "depth": 1.0 + run.experiment.seed})
    texts = write_texts(plan, tmp_path / "report")
    rows = parse_table(texts["differences.md"])
    assert {(row["run"], row["against"]) for row in rows} == {
        ("hard_sharing-fixed", "hard_sharing-gls")
    }
    assert [row["difference"] for row in rows] == ["-0.25", "+0"]


def test_differences_use_only_seeds_of_both_groups(tmp_path: Path) -> None:
    plan = make_finished_plan(tmp_path)
    (plan.groups[0].runs[1].folder / "results.json").unlink()
    texts = write_texts(plan, tmp_path / "report")
    (semseg, *_) = parse_table(texts["differences.md"])
    assert (semseg["seeds"], semseg["difference"]) == ("1", "+0.1")
    assert semseg["verdict"] == "one seed: no spread known"
    assert "One seed gives no estimate of the spread" in texts["report.html"]
    assert parse_table(texts["table.md"])[1]["seeds"] == "1"


@pytest.mark.usefixtures("drawn_figures")
def test_page_is_self_contained(tmp_path: Path) -> None:
    text = write_texts(make_finished_plan(tmp_path), tmp_path / "report")["report.html"]
    page = Page(text)
    assert page.open == []
    assert len(page.references) == 2
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert "url(" not in text
    assert "://" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "a &lt;title&gt;" in text
    assert "synthetic val, 4 images, survey protocol" in text


def test_page_shows_panels_only_if_enabled(tmp_path: Path) -> None:
    plan = make_finished_plan(tmp_path)
    for step in (1, 12):
        folder = plan.runs[0].folder / "panels"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"step_{step:06d}.png"), np.full((4, 4, 3), step, np.uint8))
    texts = write_texts(plan, tmp_path / "report")
    without = Page(texts["report.html"]).references
    texts = write_texts(plan, tmp_path / "report", panels=True)
    shown = Page(texts["report.html"]).references
    assert shown[: len(without)] == without
    (panel,) = shown[len(without) :]
    last = plan.runs[0].folder / "panels" / "step_000012.png"
    assert b64decode(panel.partition(",")[2]) == last.read_bytes()


def test_page_shows_failures(tmp_path: Path) -> None:
    plan = make_finished_plan(tmp_path)
    failed = plan.groups[1].runs[1]
    (failed.folder / "results.json").unlink()
    (failed.folder / "output.txt").write_text("epoch 1\nValueError: <odd>\n")
    write_failure(failed, "exit code 1")
    text = write_texts(plan, tmp_path / "report")["report.html"]
    assert "Not finished: 1 of 8 runs" in text
    assert "exit code 1\nepoch 1\nValueError: &lt;odd&gt;" in text


def test_each_backbone_has_separate_baselines(tmp_path: Path) -> None:
    plan = make_finished_plan(tmp_path, backbones=["test_resnet", "test_convnext"])
    rows = parse_table(write_texts(plan, tmp_path / "report")["table.md"])
    assert [row["run"] for row in rows][:3] == [
        "single tasks-test_resnet",
        "single tasks-test_convnext",
        "hard_sharing-test_resnet",
    ]


def test_report_without_baselines_has_no_delta_m(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path)
    for run in plan.runs:
        write_finished_run(run)
    texts = write_texts(plan, tmp_path / "report")
    assert "Delta_m" not in texts["table.md"]
    assert len(Page(texts["report.html"]).references) == 1


@pytest.mark.usefixtures("drawn_figures")
def test_validation_curves_show_all_groups(tmp_path: Path) -> None:
    plan = make_finished_plan(tmp_path)
    write_texts(plan, tmp_path / "report")
    figure = cv2.imread(str(tmp_path / "report" / "curves.png"))
    for color in ((180, 119, 31), (232, 199, 174)):
        assert (figure == color).all(axis=2).sum() > 20


def test_report_without_finished_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no run of the benchmark is finished"):
        write_report(make_tiny_plan(tmp_path), tmp_path / "report", "empty")


def test_killed_reference_is_named(tmp_path: Path) -> None:
    plan = make_finished_plan(tmp_path)
    for run in plan.groups[0].runs:
        (run.folder / "results.json").unlink()
        write_failure(run, "killed by SIGKILL")
    texts = write_texts(plan, tmp_path / "report")
    note = "No differences from hard_sharing, as none of its runs is finished: killed by SIGKILL"
    for name in ("report.html", "differences.md"):
        assert note in texts[name]
        assert "hard_sharing/seed0/failed.txt" in texts[name]
    assert parse_table(texts["differences.md"]) == []


def test_report_without_finished_runs_names_the_failure(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["baselines=auto"])
    write_failure(plan.baselines[0], "killed by SIGKILL")
    with pytest.raises(ResultsError, match=r"task semseg.*killed by SIGKILL \(see .*failed\.txt"):
        write_report(plan, tmp_path / "report", "empty")


@pytest.mark.usefixtures("drawn_figures")
def test_table_has_the_primary_metric_and_curves_the_validation_metric(tmp_path: Path) -> None:
    """For edges, odsF is reported, but validations only have the F-measure of pixels."""
    plan = make_finished_plan(tmp_path)
    for run in (*plan.baselines, *plan.runs):
        results = load_results(run.folder)
        tasks = {}
        for task, result in results.tasks.items():
            values = {**result.metrics, "odsF": 7.0}
            tasks[task] = result.model_copy(
                update={
                    "primary_metric": "odsF",
                    "selection_metric": result.primary_metric,
                    "metrics": values,
                }
            )
        results.model_copy(update={"tasks": tasks}).save(run.folder / RESULTS_FILE)
    texts = write_texts(plan, tmp_path / "report")
    assert {row["semseg odsF ↑"] for row in parse_table(texts["table.md"])} == {"7 ± 0"}
    groups = collect_results(plan)
    without_logs = [replace(group, folders={}) for group in groups]
    for name, plotted in (("with", groups), ("without", without_logs)):
        plot_validation_curves(tmp_path / f"{name}.png", plotted)
    curves, empty = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("with", "without"))
    assert (curves != empty).any()
