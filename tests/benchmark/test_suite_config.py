"""Suite files: what they stand for, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from densemtl import registry
from densemtl.analysis.compatibility import list_architectures
from densemtl.benchmark.grid import make_plan
from densemtl.benchmark.suite_config import load_benchmark_config
from densemtl.errors import ConfigError
from tests.helpers.fake_benchmark_runs import make_tiny_plan

ROOT = Path(__file__).parents[2]
QUICK = ROOT / "benchmarks" / "quick.yaml"
BALANCING = ROOT / "benchmarks" / "balancing.yaml"


def test_the_grid(tmp_path: Path) -> None:
    grid = make_tiny_plan(
        tmp_path,
        backbones=[{"name": "test_resnet", "pretrained": False}, "test_convnext"],
        balancing=["fixed", "uncertainty"],
        seeds=[3, 5],
    )
    assert len(grid.runs) == len({run.folder for run in grid.runs}) == 2 * 2 * 2 * 2
    last = grid.groups[-1]
    assert last.name == "cross_stitch-test_convnext-uncertainty"
    assert last.reference == "hard_sharing-test_convnext-uncertainty"
    run = last.runs[1]
    assert run.folder == tmp_path / "out" / last.name / "seed5"
    chosen = run.experiment
    assert (chosen.decoder.name, chosen.backbone.name) == ("cross_stitch", "test_convnext")
    assert (chosen.balancing.name, chosen.seed) == ("uncertainty", 5)


def test_one_entry_of_an_axis_is_not_named(tmp_path: Path) -> None:
    grid = make_tiny_plan(tmp_path, backbones=["test_resnet"], balancing=["fixed"])
    assert [group.name for group in grid.groups] == ["hard_sharing", "cross_stitch"]


def test_options_tell_equal_names_apart(tmp_path: Path) -> None:
    entries = [{"name": "pad_net", "width": 8}, {"name": "pad_net", "width": 16}, "mtan"]
    grid = make_tiny_plan(tmp_path, decoders=entries, reference="pad_net-width=16")
    assert [group.name for group in grid.groups] == ["pad_net-width=8", "pad_net-width=16", "mtan"]
    assert {group.reference for group in grid.groups} == {"pad_net-width=16"}
    assert grid.groups[1].runs[0].experiment.decoder.options == {"width": 16}


def test_one_architecture_has_its_rules_compared(tmp_path: Path) -> None:
    grid = make_tiny_plan(
        tmp_path,
        decoders=["hard_sharing"],
        backbones=["test_resnet", "test_convnext"],
        balancing=["equal", {"name": "dwa", "temperature": 1.0}, {"name": "dwa"}],
        reference="dwa-temperature=1.0",
    )
    rivals = {group.name: group.reference for group in grid.groups}
    for backbone in ("test_resnet", "test_convnext"):
        for rule in ("equal", "dwa-temperature=1.0", "dwa"):
            name = f"hard_sharing-{backbone}-{rule}"
            assert rivals[name] == f"hard_sharing-{backbone}-dwa-temperature=1.0"


def test_the_first_is_the_reference(tmp_path: Path) -> None:
    rules = make_tiny_plan(tmp_path, decoders=["mtan"], balancing=["dwa", "fixed"])
    assert [group.reference for group in rules.groups] == ["mtan-dwa", "mtan-dwa"]
    architectures = make_tiny_plan(tmp_path, balancing=["dwa", "fixed"])
    assert {group.reference for group in architectures.groups} == {
        "hard_sharing-dwa",
        "hard_sharing-fixed",
    }


def test_references_are_shared_by_all_that_can_share_them(tmp_path: Path) -> None:
    grid = make_tiny_plan(
        tmp_path,
        overrides=["baselines=auto"],
        backbones=["test_resnet", "test_convnext"],
        balancing=["fixed", "uncertainty"],
        seeds=[0, 1],
    )
    assert len(grid.runs) == 16
    assert len(grid.baselines) == 2 * 2 * 2
    by_folder = {run.folder: run.experiment for run in grid.baselines}
    for run in grid.runs:
        assert len(run.required_folders) == 2
        for task, folder in zip(["semseg", "depth"], run.required_folders, strict=True):
            single = by_folder[folder]
            assert single.list_task_names() == [task]
            assert single.backbone == run.experiment.backbone
            assert single.seed == run.experiment.seed
        assert run.experiment.baselines == dict(
            zip(["semseg", "depth"], run.required_folders, strict=True)
        )


def test_no_references_where_none_are_asked_for(tmp_path: Path) -> None:
    grid = make_tiny_plan(tmp_path)
    assert grid.baselines == ()
    assert {run.required_folders for run in grid.runs} == {()}


def test_overrides_change_the_base(tmp_path: Path) -> None:
    grid = make_tiny_plan(tmp_path, overrides=["train.epochs=7", "head.width=16"])
    assert {run.experiment.train.epochs for run in grid.runs} == {7}
    assert {run.experiment.head.options["width"] for run in grid.runs} == {16}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"decoder": ["mtan"]}, "suite.yaml: decoder: unknown key, did you mean 'decoders'?"),
        ({"decoders": None}, "suite.yaml: decoders: must be given"),
        ({"decoders": []}, "suite.yaml: decoders: empty list, give at least one entry"),
        ({"decoders": ["mtann"]}, "suite.yaml: decoder.name: no 'mtann' in decoders: did you"),
        ({"decoders": [{"name": "pad_net", "widht": 8}]}, "unknown key, did you mean 'width'?"),
        ({"decoders": ["mtan", "mtan"]}, "suite.yaml: decoders: 'mtan' is listed twice"),
        (
            {"reference": "cross_stich"},
            "suite.yaml: reference: 'cross_stich' is not an entry of decoders",
        ),
        (
            {"decoders": ["mtan"], "balancing": ["dwa", "gls"], "reference": "glz"},
            "suite.yaml: reference: 'glz' is not an entry of balancing, did you mean 'gls'?",
        ),
        ({"balancing": ["dwa", "gls"], "reference": "gls"}, "'gls' is not an entry of decoders"),
        ({"seeds": []}, "suite.yaml: seeds: empty list, give at least one entry"),
        ({"seeds": [1, 1]}, "suite.yaml: seeds: [1, 1] has duplicates"),
        ({"seeds": [-1]}, "suite.yaml: seeds.0: Input should be greater than or equal to 0"),
        ({"workers": 0}, "suite.yaml: workers: Input should be greater than or equal to 1"),
        ({"overrides": ["epochs"]}, "suite.yaml: overrides: 'epochs' is not of the form key.key="),
        ({"overrides": ["train.epoch=1"]}, "suite.yaml: train.epoch: unknown key, did you mean"),
        ({"base": "tny.yaml"}, "tny.yaml: cannot be read: No such file"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_tiny_plan(tmp_path, seeds=values.pop("seeds", [0, 1]), **values)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_quick_suite_has_every_architecture() -> None:
    grid = make_plan(load_benchmark_config(QUICK), QUICK, Path("out"))
    assert sorted(group.name for group in grid.groups) == sorted(list_architectures())
    assert {len(group.runs) for group in grid.groups} == {2}
    assert len(grid.baselines) == 2 * 3


def test_the_balancing_suite_has_every_rule() -> None:
    grid = make_plan(load_benchmark_config(BALANCING), BALANCING, Path("out"))
    chosen = [group.runs[0].experiment.balancing.name for group in grid.groups]
    assert sorted(chosen) == registry.list_names("balancing")
    assert {group.reference for group in grid.groups} == {"hard_sharing-fixed"}
    assert {len(group.runs) for group in grid.groups} == {2}
    assert len(grid.baselines) == 2 * 3
