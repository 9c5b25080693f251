"""Tables of renamed names: new names exist, and old files load with unchanged hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from densemtl import registry
from densemtl.config.experiment import (
    ExperimentConfig,
    load_experiment,
    load_saved,
    parse_saved_experiment,
)
from densemtl.config.renamed_keys import (
    RENAMED_KEYS,
    RENAMED_PARAMETERS,
    RENAMED_PROGRESS_FIELDS,
    RENAMED_RESULT_FIELDS,
    RENAMED_VALUES,
)
from densemtl.config.translation import (
    restore_config,
    restore_parameters,
    translate_config,
    translate_fields,
    translate_parameters,
)
from densemtl.config.validation import SECTION_PACKAGES
from densemtl.create import create_model
from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.engine.train_state import TrainingProgress
from densemtl.errors import ConfigError
from densemtl.results.results import Results, load_results

OLD_NYUD = """
tasks: [semseg, depth, {name: normals, divisor: pixels}, {name: edge, regions_under: []}]
data: {name: nyud, root: /data, train_list: all, val_list: test, classes: 13}
augment:
  {zooms: [1.0, 1.2], zoom_choices: [1.0, 1.5], crop: centre, rotate: 5, flip: 0.3,
  max_class_ratio: 0.75, jitter: {hue: 0.1}, pixels: [{name: GaussianBlur, p: 0.2}]}
loader: {workers: 0, cache: disk, cache_folder: /cache, corrupt: skip}
backbone: {name: resnet18, pretrained: false}
decoder: {name: mti_net, softmax: published_code}
head: {name: deeplab, rates: [6, 12]}
balancing: {name: gradnorm, rate: 0.01}
schedule: {per: iteration, final_lr: 1.0e-6}
train:
  {accumulate: 2, clip_norm: 10, ema: 0.9, panels_every: 5, panels: 3, relations_every: 1,
  log_every: 2, checkpoint_steps: 50, shard: true, checkpoint_activations: true, non_finite: skip}
trackers: [{name: mlflow, uri: "file:runs", experiment: rooms}]
"""

OLD_FOLDER = """
tasks:
  - {name: plants, colours: [[1, 2, 3], [4, 5, 6]]}
  - {name: saliency, metrics: [reliability]}
  - {name: height, low: 0.0, high: 3.0, scales_with_zoom: true}
  - flow
data:
  name: folder
  root: /data
  images: images
  val_share: 0.3
  labels:
    plants:
      {files: plants, kind: classes, stored: classes, first: 1, void: [9], class_names: [a, b]}
    saliency: {files: saliency}
    height: {files: height, kind: regression, options: {high: 2.0}}
    flow: {files: flow, kind: unit_vectors, channels: 2, options: {divisor: pixels}}
backbone: {name: resnet18, pretrained: false}
decoder: {name: cgc, gate: pooled, own_experts: 2}
head: {name: hrnet}
"""

OLD_PASCAL = """
tasks: [semseg, edge]
data: {name: pascal_context, root: /data, train_list: a, val_list: b, edge_val_list: c, cache: /d}
backbone: {name: resnet18, pretrained: false}
decoder: {name: asymmetric_sharing, reads: {semseg: [edge], edge: []}}
head: {name: linear}
"""

OLD_SHARDS = """
tasks: [semseg, depth]
data: {name: shards, root: /data, folder: /cache, keep: 2}
backbone: {name: resnet18, pretrained: false}
decoder: {name: ple, gate: pooled, own_experts: 2}
head: {name: linear}
"""

OLD_CONFIGS = {
    "e21521fad714": OLD_NYUD,
    "15ea2387511c": OLD_FOLDER,
    "a2e4ff0086b3": OLD_PASCAL,
    "e778d2f0f5d2": OLD_SHARDS,
}
"""{hash computed by the version with these names: configuration}."""

OLD_RESULTS = {
    "format": 1,
    "run": {"dataset": "nyud", "backbone": "resnet18", "decoder": "hard_sharing"},
    "tasks": {
        "depth": {
            "primary": "rmse",
            "higher_is_better": False,
            "selection": "absRel",
            "metrics": {"rmse": 0.5, "absRel": 0.1},
            "delta": 2.0,
        }
    },
    "delta_m": 2.0,
    "baselines": {"depth": {"file": "baselines/depth", "value": 0.51, "weights": "2b"}},
    "protocol": "survey",
    "split": "val",
    "split_fingerprint": "abc",
    "images": 654,
    "weights": "3c",
    "seed": 0,
    "fingerprint": "4d",
    "versions": {},
}


@pytest.mark.parametrize(("config_hash", "text"), OLD_CONFIGS.items())
def test_old_configuration_keeps_its_hash(config_hash: str, text: str) -> None:
    experiment = parse_saved_experiment(text, Path("old.yaml"))
    assert experiment.compute_config_hash() == config_hash
    again = parse_saved_experiment(experiment.to_yaml(), Path("new.yaml"))
    assert again == experiment
    assert again.compute_config_hash() == config_hash


@pytest.mark.parametrize("text", [OLD_NYUD, OLD_FOLDER, OLD_PASCAL])
def test_old_options_are_translated(text: str) -> None:
    experiment = load_saved(text, Path("old.yaml"))
    assert experiment == parse_saved_experiment(text, Path("old.yaml"))
    assert translate_config(experiment.model_dump(mode="json"))[1] == []


@pytest.mark.parametrize("text", OLD_CONFIGS.values())
def test_restore_config_inverts_translate_config(text: str) -> None:
    old = yaml.safe_load(text)
    translated, renames = translate_config(old)
    assert renames
    assert restore_config(translated) == old


def test_old_configurations_contain_every_old_key() -> None:
    renames = [
        rename
        for text in OLD_CONFIGS.values()
        for rename in translate_config(yaml.safe_load(text))[1]
    ]
    keys = {
        rename.path.rpartition(".")[2] for rename in renames if rename.message.startswith("renamed")
    }
    assert keys == {path.rpartition(".")[2] for path in RENAMED_KEYS}


OVERRIDES = [
    ("train.accumulate=2", "train.accumulate: renamed to 'grad_accum_steps'"),
    ("train.shard=true", "train.shard: renamed to 'fsdp'"),
    ("augment.zooms=[1, 2]", "augment.zooms: renamed to 'scale_range'"),
    ("augment.crop=centre", "augment.crop: 'centre' was renamed to 'center'"),
    ("schedule.interval=iteration", "schedule.interval: 'iteration' was renamed to 'step'"),
    ("head={name: deeplab}", "head.name: 'deeplab' was renamed to 'deeplabv3'"),
    ("head={name: deeplabv3, rates: [2]}", "head.rates: renamed to 'atrous_rates'"),
    ("decoder={name: mmoe, gate: pooled}", "decoder.gate: renamed to 'gating'"),
    ("tasks=[{name: normals, divisor: pixel_mean}]", "tasks.0.divisor: renamed to 'reduction'"),
    (
        "tasks=[{name: normals, reduction: pixels}]",
        "tasks.0.reduction: 'pixels' was renamed to 'pixel_mean'",
    ),
    (
        "tasks=[{name: edge, metrics: [reliability]}]",
        "tasks.0.metrics.0: 'reliability' was renamed to 'calibration_error'",
    ),
    ("trackers=[{name: mlflow, uri: x}]", "trackers.0.uri: renamed to 'tracking_uri'"),
]

NEW_CONFIG = """
tasks: [semseg]
data: {name: nyud, root: /data}
backbone: {name: resnet18, pretrained: false}
decoder: {name: hard_sharing}
head: {name: linear}
"""


@pytest.mark.parametrize(("override", "line"), OVERRIDES)
def test_old_name_is_one_line_error_with_new_name(tmp_path: Path, override: str, line: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(NEW_CONFIG)
    with pytest.raises(ConfigError) as on_command_line:
        load_experiment(file, [override])
    lines = str(on_command_line.value).splitlines()
    assert lines[0] == f"command line: {line}"
    path, _, value = override.partition("=")
    section, _, key = path.partition(".")
    changed = yaml.safe_load(value)
    file.write_text(
        yaml.safe_dump(yaml.safe_load(NEW_CONFIG) | {section: {key: changed} if key else changed})
    )
    with pytest.raises(ConfigError) as in_file:
        load_experiment(file)
    assert str(in_file.value).splitlines() == [
        text.replace("command line", str(file), 1) for text in lines
    ]
    assert len(lines) == 1


def test_task_named_like_an_old_kind_is_not_translated(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    labels = {"classes": {"files": "x", "kind": "semseg", "class_names": ["a", "b"]}}
    data = {"name": "folder", "root": "/data", "images": "images", "labels": labels}
    file.write_text(
        yaml.safe_dump(yaml.safe_load(NEW_CONFIG) | {"tasks": ["classes"], "data": data})
    )
    experiment = load_experiment(file)
    assert experiment.list_task_names() == ["classes"]
    assert load_saved(experiment.to_yaml(), file) == experiment


def find_models(path: tuple[str, ...]) -> list[type[BaseModel]]:
    """Return the models of the sections at a path; several if the path contains `*`."""
    section, *names = path
    if names[-1:] == ["options"] or (section == "tasks" and names == ["*"]):
        return [registry.make_options_model(registry.get_class("tasks", kind)) for kind in KINDS]
    if path[:3] == ("data", "folder", "labels"):
        return [LabelSpec]
    packages = {**SECTION_PACKAGES, "tasks": "tasks", "trackers": "trackers"}
    if section in packages:
        return [registry.make_options_model(registry.get_class(packages[section], names[0]))]
    model = ExperimentConfig.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return [model]


KINDS = registry.list_names("tasks")


@pytest.mark.parametrize(("path", "new"), RENAMED_KEYS.items())
def test_new_keys_exist_and_old_keys_do_not(path: str, new: str) -> None:
    *parents, old = path.split(".")
    models = find_models(tuple(parents))
    assert any(new in model.model_fields for model in models)
    assert not any(old in model.model_fields for model in models)


def list_literals(annotation: Any) -> set[Any]:
    """Return all values of the literal types in an annotation."""
    inside = get_args(annotation)
    return {
        value for each in inside for value in (list_literals(each) if get_args(each) else {each})
    }


@pytest.mark.parametrize(("path", "renamed"), RENAMED_VALUES.items())
def test_new_values_exist_and_old_values_do_not(path: str, renamed: dict[Any, Any]) -> None:
    *parents, key = path.split(".")
    packages = {**SECTION_PACKAGES, "metrics": "metrics", "tasks": "tasks"}
    if key == "kind" or (key == "name" and len(parents) == 1):
        known = set(registry.list_names("tasks" if key == "kind" else packages[parents[0]]))
    else:
        models = find_models(tuple(parents))
        known = {
            value
            for model in models
            if key in model.model_fields
            for value in list_literals(model.model_fields[key].annotation)
        }
        if not known:
            known = {
                value
                for model in models
                if key in model.model_fields
                for value in get_args(model.model_fields[key].annotation)
            }
    assert set(renamed.values()) <= known
    assert not set(renamed) & known


@pytest.mark.parametrize("decoder", RENAMED_PARAMETERS)
def test_new_prefixes_exist_and_old_prefixes_do_not(decoder: str) -> None:
    model = create_model(decoder, backbone="test_resnet", tasks=["depth", "edge"], head="linear")
    tensors = model.state_dict()
    for old, new in RENAMED_PARAMETERS[decoder].items():
        assert any(name.startswith(new) for name in tensors)
        assert not any(name.startswith(old) for name in tensors)
    restored = restore_parameters(tensors, decoder)
    assert len(restored) == len(tensors)
    assert list(translate_parameters(restored, decoder)) == list(tensors)


def test_old_results_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(OLD_RESULTS))
    results = load_results(tmp_path)
    depth = results.tasks["depth"]
    assert (depth.primary_metric, depth.selection_metric) == ("rmse", "absRel")
    assert (results.weights_hash, results.config_hash) == ("3c", "4d")
    assert results.baselines["depth"].weights_hash == "2b"
    results.save(tmp_path / "results.json")
    assert load_results(tmp_path) == results


def test_new_fields_exist() -> None:
    fields = translate_fields(OLD_RESULTS, RENAMED_RESULT_FIELDS)
    assert len(RENAMED_RESULT_FIELDS) == 5
    loaded = Results.model_validate(fields).model_dump(mode="json")
    for name in ("baselines", "weights_hash", "config_hash"):
        assert loaded[name] == fields[name]
    for task, result in fields["tasks"].items():
        assert loaded["tasks"][task].items() >= result.items()
    progress = vars(TrainingProgress())
    assert progress.keys() >= set(RENAMED_PROGRESS_FIELDS.values())
    assert not progress.keys() & RENAMED_PROGRESS_FIELDS.keys()
    saved = {"step": 3, "best": {"depth": 1.0}, "best_weights": "2b"}
    assert TrainingProgress(**translate_fields(saved, RENAMED_PROGRESS_FIELDS)) == TrainingProgress(
        step=3, best_selection_scores={"depth": 1.0}, best_weights_hash="2b"
    )
