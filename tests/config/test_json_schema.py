"""JSON schema: accepts valid configurations, rejects invalid ones, describes all keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from densemtl import registry
from densemtl.config import validation
from densemtl.config.experiment import ExperimentConfig, load_experiment
from densemtl.config.json_schema import make_json_schema
from densemtl.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write_file(text: str) -> Path:
        (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "run.yaml"

    return write_file


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Return whether a value matches a JSON schema, for the keywords that pydantic uses."""
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        return accepts(target, value, root)
    if "anyOf" in schema and not any(accepts(each, value, root) for each in schema["anyOf"]):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return False
    if isinstance(value, str):
        return schema.get("pattern", "") in value
    if isinstance(value, dict):
        return accepts_object(schema, value, root)
    if isinstance(value, list):
        items = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
        return len(items) == len(value) and all(
            accepts(item, part, root) for item, part in zip(items, value, strict=True)
        )
    if isinstance(value, int | float):
        return schema.get("minimum", value) <= value and value > schema.get(
            "exclusiveMinimum", value - 1
        )
    return True


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def accepts_object(schema: dict[str, Any], value: dict[str, Any], root: dict[str, Any]) -> bool:
    known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    if not set(schema.get("required", ())) <= set(value):
        return False
    unknown = [part for key, part in value.items() if key not in known]
    if more is False and unknown:
        return False
    if isinstance(more, dict) and not all(accepts(more, part, root) for part in unknown):
        return False
    return all(accepts(known[key], part, root) for key, part in value.items() if key in known)


BUILT_IN = """
tasks: [semseg, {name: depth, loss: berhu}]
data: {name: synthetic}
backbone: {name: resnet18, pretrained: false}
decoder: {name: hard_sharing}
head: {name: linear}
balancing: {name: fixed, weights: {depth: 2.0}}
optim: {lr: 0.01}
input: {size: [96, 128]}
"""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return make_json_schema()


def test_schema_accepts_valid_configurations(schema, write):
    resolved = load_experiment(write(BUILT_IN)).to_yaml()
    custom = BUILT_IN.replace("{name: hard_sharing}", '{name: "mine.parts:Decoder", any: 3}')
    taught = f"{BUILT_IN}\nteachers: {{depth: a, semseg: {{run: b, threshold: 0.9}}}}"
    short = "base: b.yaml\ndecoder: {}\nhead: {width: 3}\nteachers: none"
    for text in (BUILT_IN, resolved, custom, taught, short):
        assert accepts(schema, yaml.safe_load(text), schema)


@pytest.mark.parametrize(
    "change",
    [
        {"sede": 1},
        {"optim": {"lr": "fast"}},
        {"optim": {"lr": 0}},
        {"tasks": "semseg"},
        {"input": {"size": [3]}},
        {"data": {"name": "synthetik"}},
        {"data": {"name": "synthetic", "roots": "/x"}},
        {"decoder": {"name": "hard_sharing", "wid": 3}},
        {"backbone": {"name": "resnet18", "pretraind": True}},
        {"balancing": {"name": "fixed", "weights": {"depth": "much"}}},
        {"trackers": [{"name": "wandb", "mode": "of"}]},
        {"trackers": [{"name": "wand"}]},
        {"trackers": "wandb"},
        {"teachers": {"depth": {"thresh": 0.9}}},
    ],
)
def test_schema_rejects_invalid_configurations(schema, write, change):
    values = yaml.safe_load(BUILT_IN) | change
    assert not accepts(schema, values, schema)
    with pytest.raises(ConfigError):
        load_experiment(write(yaml.safe_dump(values)))


def test_schema_requires_all_sections_without_base(schema):
    values = yaml.safe_load(BUILT_IN)
    for section in ("tasks", "data", "backbone", "decoder", "head"):
        rest = {key: value for key, value in values.items() if key != section}
        assert not accepts(schema, rest, schema)
        assert accepts(schema, rest | {"base": "b.yaml"}, schema)


def test_schema_contains_every_component(schema):
    for section, package in validation.SECTION_PACKAGES.items():
        variants = schema["properties"][section]["anyOf"]
        named = {variant["properties"]["name"].get("const") for variant in variants}
        assert named >= set(registry.list_names(package))
    trackers = schema["properties"]["trackers"]["items"]["anyOf"]
    named = {each.get("properties", {}).get("name", {}).get("const") for each in trackers}
    assert named >= set(registry.list_names("trackers"))
    assert set(schema["properties"]) == {*ExperimentConfig.model_fields, "base"}


def test_schema_describes_every_key(schema):
    sections = [each for name, each in schema["$defs"].items() if name.endswith("Config")]
    described = [
        value.get("description") for each in sections for value in each["properties"].values()
    ]
    assert len(described) > 40
    assert all(described)
