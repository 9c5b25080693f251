"""Runs with random options of any type that the annotations allow, for one step of training."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import timm
import timm.optim
import torch
import yaml
from hypothesis import strategies as st

from densemtl import cli, registry
from densemtl.backbones.backbone import Backbone
from densemtl.config.experiment import load_experiment
from densemtl.config.sections import (
    AugmentConfig,
    InputConfig,
    LoaderConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)
from densemtl.data.datasets.synthetic import SyntheticDataset
from densemtl.engine.trainer import train
from densemtl.factory import build_splits
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import ExecutionConfig

BACKBONES = tuple(timm.list_models("test_*"))
TASKS = ("semseg", "human_parts", "depth", "normals", "edge", "saliency")
KINDS = ("classification", "binary", "regression", "direction")
_timm_optim: Any = timm.optim
OPTIMIZERS = tuple(_timm_optim.list_optimizers(exclude_filters=["*kron*"]))
"""All optimizers except Kron's, whose compilation takes a minute."""

SECTIONS = {
    "input": get_type_hints(InputConfig),
    "augment": get_type_hints(AugmentConfig),
    "loader": get_type_hints(LoaderConfig),
    "optim": get_type_hints(OptimConfig) | {"name": Literal[OPTIMIZERS]},
    "schedule": get_type_hints(ScheduleConfig),
    "train": get_type_hints(TrainConfig),
}
EXCLUDED_OPTIONS = (
    *("num_workers", "cache", "cache_dir", "compile", "fsdp", "albumentations", "pretrained"),
    *("color_jitter", "model_config", "return"),
)
"""Options that start processes, write files, take minutes, or have separate tests."""

Values = dict[str, Any]

CPU = ExecutionConfig(torch.device("cpu"))

integers = st.one_of(
    st.sampled_from((1, 2, 3, 4, 5, 8, 16, 17, 33)),
    st.integers(1, 48),
    st.sampled_from((0, -1, -5, 300, 10**9, 2**31, 10**40)),
)
floats = st.one_of(
    st.sampled_from((0.1, 0.5, 0.9, 1.0, 2.0, 3.7)),
    st.floats(0, 2),
    st.sampled_from((0.0, -1.0, 1e-30, 1e4, 1e30, 1e300, float("nan"), float("inf"))),
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: integers,
    float: floats,
    bool: st.booleans(),
    str: st.sampled_from(("", "a", *TASKS)),
    NoneType: st.none(),
    Path: st.just("nowhere"),
}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Return values of a type as in a YAML file; limits in the annotation are not respected."""
    kind, inside = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return values_of(inside[0])
    if kind is Literal:
        return st.sampled_from(inside)
    if kind in (Union, UnionType):
        return st.one_of(*map(values_of, inside))
    if kind is dict:
        return st.dictionaries(values_of(inside[0]), values_of(inside[1]), max_size=2)
    if kind is list or inside[1:] == (...,):
        return st.lists(values_of(inside[0]), max_size=4)
    if kind is tuple:
        return st.tuples(*map(values_of, inside)).map(list)
    return PLAIN.get(annotation, st.none())


@st.composite
def few_options(draw: st.DrawFn, hints: Values) -> Values:
    """Draw at most two options, so that the effect of single options is tested."""
    candidates = sorted(set(hints) - set(EXCLUDED_OPTIONS))
    names = (
        draw(st.lists(st.sampled_from(candidates), min_size=1, max_size=2, unique=True))
        if candidates
        else []
    )
    return {name: draw(values_of(hints[name])) for name in names}


def get_option_types(cls: type[Any]) -> Values:
    """Return the types of the options of a component."""
    fields = registry.make_options_model(cls).model_fields
    return {name: field.annotation for name, field in fields.items()}


@st.composite
def options(draw: st.DrawFn, cls: type[Any]) -> Values:
    """Draw all required and at most two other options of a component."""
    fields, hints = registry.make_options_model(cls).model_fields, get_option_types(cls)
    required = [name for name, field in fields.items() if field.is_required()]
    return {**{name: draw(values_of(hints[name])) for name in required}, **draw(few_options(hints))}


@st.composite
def component(draw: st.DrawFn, package: str) -> Values:
    """Draw a component of a package with random options."""
    name = draw(st.sampled_from(registry.list_names(package)))
    return {"name": name, **draw(options(registry.get_class(package, name)))}


@st.composite
def tasks(draw: st.DrawFn) -> list[Values]:
    """Draw up to three of the six tasks, one of them possibly of another kind."""
    names = draw(st.lists(st.sampled_from(TASKS), min_size=1, max_size=3, unique=True))
    entries: list[Values] = [{"name": name} for name in names]
    if draw(st.booleans()):
        kind = draw(st.one_of(st.just(names[0]), st.sampled_from(KINDS)))
        entries[0] |= {"kind": kind, **draw(options(registry.get_class("tasks", kind)))}
    return entries


@st.composite
def runs(draw: st.DrawFn) -> list[str]:
    """Draw overrides of the tiny experiment with random options of one to three sections."""
    parts: dict[str, st.SearchStrategy[Any]] = {
        "tasks": tasks(),
        "decoder": component("decoders"),
        "head": component("heads"),
        "balancing": component("balancing"),
        "data": options(SyntheticDataset),
        "backbone": options(Backbone),
        **{name: few_options(hints) for name, hints in SECTIONS.items()},
    }
    names = draw(st.lists(st.sampled_from(sorted(parts)), min_size=1, max_size=3, unique=True))
    sections = {name: draw(parts[name]) for name in names}
    backbone = {"name": draw(st.sampled_from(BACKBONES)), "pretrained": False}
    sections |= {"backbone": backbone | sections.get("backbone", {}), "trackers": []}
    return [
        f"{name}={yaml.safe_dump(value, default_flow_style=True)}"
        for name, value in sections.items()
    ]


def run_one_step(overrides: list[str], file: Path) -> tuple[int, str]:
    """Run one training step of the tiny experiment, and return exit code and standard error."""
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr), TemporaryDirectory(dir=file.parent) as folder:
            cli.run_main(lambda: _train_one_step(file, overrides, Path(folder)))
    except SystemExit as end:
        return int(end.code or 0), stderr.getvalue()


def _train_one_step(file: Path, overrides: list[str], folder: Path) -> None:
    experiment = load_experiment(file, [*overrides, "train.epochs=1"])
    run = build_training_run(experiment, build_splits(experiment), folder, CPU)
    run.train_step.balancer.validate_model(run.train_step.model)
    train(run, max_steps=1)


def is_clear_error(output: str) -> bool:
    """Return whether every error is one line that is shorter than a few rows of a terminal."""
    lines = output.splitlines()
    return bool(lines) and all(line.startswith("error: ") and len(line) < 900 for line in lines)
