"""Tests of benchmark configurations: the grid of runs, and error messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from densemtl import registry
from densemtl.analysis.compatibility import list_architectures
from densemtl.benchmark.grid import make_plan
from densemtl.benchmark.suite_config import load_benchmark_config
from densemtl.errors import ConfigError
from tests.helpers.decoder_cases import TRANSFORMER_ARCHITECTURES
from tests.helpers.fake_benchmark_runs import make_tiny_plan

ROOT = Path(__file__).parents[2]
QUICK = ROOT / "benchmarks" / "quick.yaml"
BALANCING = ROOT / "benchmarks" / "balancing.yaml"


def test_plan_combines_all_entries_and_seeds(tmp_path: Path) -> None:
    plan = make_tiny_plan(
        tmp_path,
        backbones=[{"name": "test_resnet", "pretrained": False}, "test_convnext"],
        balancing=["fixed", "uncertainty"],
        seeds=[3, 5],
    )
    assert len(plan.runs) == len({run.folder for run in plan.runs}) == 2 * 2 * 2 * 2
    last = plan.groups[-1]
    assert last.name == "cross_stitch-test_convnext-uncertainty"
    assert last.reference == "hard_sharing-test_convnext-uncertainty"
    run = last.runs[1]
    assert run.folder == tmp_path / "out" / last.name / "seed5"
    experiment = run.experiment
    assert (experiment.decoder.name, experiment.backbone.name) == ("cross_stitch", "test_convnext")
    assert (experiment.balancing.name, experiment.seed) == ("uncertainty", 5)


def test_group_names_omit_sections_with_one_entry(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, backbones=["test_resnet"], balancing=["fixed"])
    assert [group.name for group in plan.groups] == ["hard_sharing", "cross_stitch"]


def test_group_names_contain_options_of_equal_components(tmp_path: Path) -> None:
    entries = [{"name": "pad_net", "width": 8}, {"name": "pad_net", "width": 16}, "mtan"]
    plan = make_tiny_plan(tmp_path, decoders=entries, reference="pad_net-width=16")
    assert [group.name for group in plan.groups] == ["pad_net-width=8", "pad_net-width=16", "mtan"]
    assert {group.reference for group in plan.groups} == {"pad_net-width=16"}
    assert plan.groups[1].runs[0].experiment.decoder.options == {"width": 16}


def test_balancing_methods_are_compared_if_there_is_one_decoder(tmp_path: Path) -> None:
    plan = make_tiny_plan(
        tmp_path,
        decoders=["hard_sharing"],
        backbones=["test_resnet", "test_convnext"],
        balancing=["equal", {"name": "dwa", "temperature": 1.0}, {"name": "dwa"}],
        reference="dwa-temperature=1.0",
    )
    references = {group.name: group.reference for group in plan.groups}
    for backbone in ("test_resnet", "test_convnext"):
        for method in ("equal", "dwa-temperature=1.0", "dwa"):
            name = f"hard_sharing-{backbone}-{method}"
            assert references[name] == f"hard_sharing-{backbone}-dwa-temperature=1.0"


def test_default_reference_is_the_first_entry(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, decoders=["mtan"], balancing=["dwa", "fixed"])
    assert [group.reference for group in plan.groups] == ["mtan-dwa", "mtan-dwa"]
    plan = make_tiny_plan(tmp_path, balancing=["dwa", "fixed"])
    assert {group.reference for group in plan.groups} == {
        "hard_sharing-dwa",
        "hard_sharing-fixed",
    }


def test_equal_baselines_are_shared(tmp_path: Path) -> None:
    plan = make_tiny_plan(
        tmp_path,
        overrides=["baselines=auto"],
        backbones=["test_resnet", "test_convnext"],
        balancing=["fixed", "uncertainty"],
        seeds=[0, 1],
    )
    assert len(plan.runs) == 16
    assert len(plan.baselines) == 2 * 2 * 2
    by_folder = {run.folder: run.experiment for run in plan.baselines}
    for run in plan.runs:
        assert len(run.required_folders) == 2
        for task, folder in zip(["semseg", "depth"], run.required_folders, strict=True):
            baseline = by_folder[folder]
            assert baseline.list_task_names() == [task]
            assert baseline.backbone == run.experiment.backbone
            assert baseline.seed == run.experiment.seed
        assert run.experiment.baselines == dict(
            zip(["semseg", "depth"], run.required_folders, strict=True)
        )


def test_plan_has_no_baselines_by_default(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path)
    assert plan.baselines == ()
    assert {run.required_folders for run in plan.runs} == {()}


def test_overrides_change_the_base(tmp_path: Path) -> None:
    plan = make_tiny_plan(tmp_path, overrides=["train.epochs=7", "head.width=16"])
    assert {run.experiment.train.epochs for run in plan.runs} == {7}
    assert {run.experiment.head.options["width"] for run in plan.runs} == {16}


@pytest.mark.parametrize(
    ("values", "message"),
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
def test_error_is_one_line(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_tiny_plan(tmp_path, seeds=values.pop("seeds", [0, 1]), **values)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_quick_benchmark_has_all_decoders() -> None:
    plan = make_plan(load_benchmark_config(QUICK), QUICK, Path("out"))
    decoders = {*list_architectures()} - TRANSFORMER_ARCHITECTURES
    assert sorted(group.name for group in plan.groups) == sorted(decoders)
    assert {len(group.runs) for group in plan.groups} == {2}
    assert len(plan.baselines) == 2 * 3


def test_balancing_benchmark_has_all_methods() -> None:
    plan = make_plan(load_benchmark_config(BALANCING), BALANCING, Path("out"))
    methods = [group.runs[0].experiment.balancing.name for group in plan.groups]
    assert sorted(methods) == registry.list_names("balancing")
    assert {group.reference for group in plan.groups} == {"hard_sharing-fixed"}
    assert {len(group.runs) for group in plan.groups} == {2}
    assert len(plan.baselines) == 2 * 3
