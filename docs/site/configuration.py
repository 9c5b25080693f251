"""The page of the configuration, from the JSON schema: every key, what it may be, its default."""

from __future__ import annotations

import json
from typing import Any

from densemtl import registry
from densemtl.config.experiment import Experiment
from densemtl.backbones.backbone import Backbone
from densemtl.results.tables import markdown_table

Schema = dict[str, Any]

HEAD = """\
# Configuration

A YAML file; `base: other.yaml` inherits, and the command line overrides single values
(`optim.lr=2e-4`). `python tools/train.py --schema` prints a JSON schema of all this, for editors.
"""

COMPONENTS = """\
## Components

A component (`data`, `backbone`, `decoder`, `head`, `balancing`, each of `tasks` and `trackers`) is
a `name` with its options beside it: the keyword-only parameters of its class.
[Architectures and balancing rules](../methods/index.md), [tasks and data](tasks.md) and
[trackers](../trackers.md) have pages of their own; backbone and heads:
"""

LIMITS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}
"""{keyword: word}."""

LARGE = 2**31 - 1
"""A limit that nobody meets."""


def pages() -> dict[str, str]:
    """{place in the site: Markdown}."""
    schema = Experiment.model_json_schema()
    sections = [_section("", _with_descriptions(schema))]
    for key, value in schema["properties"].items():
        sections += _nested(key, value, schema["$defs"])
    heads = [registry.find("heads", name) for name in registry.names("heads")]
    classes: list[type[Any]] = [Backbone, *heads]
    parts = [
        f"::: {each.__module__}.{each.__name__}\n    options:\n      members: false\n"
        for each in classes
    ]
    return {"api/configuration.md": "\n".join([HEAD, *sections, COMPONENTS, *parts])}


def _with_descriptions(schema: Schema) -> Schema:
    """Keys that hold a section say what the section says of itself."""
    told = {
        key: {"description": schema["$defs"].get(_target(value), {}).get("description"), **value}
        for key, value in schema["properties"].items()
    }
    return {**schema, "properties": told}


def _nested(key: str, value: Schema, known: dict[str, Schema]) -> list[str]:
    """A part for each section that a key holds, and for those inside."""
    for each in (value, *value.get("anyOf", ())):
        schema = known.get(_target(each), {})
        if _target(each).endswith("Settings"):
            inside = [_nested(f"{key}.{k}", v, known) for k, v in schema["properties"].items()]
            return [_section(key, schema), *(part for parts in inside for part in parts)]
    return []


def _target(schema: Schema) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _section(key: str, schema: Schema) -> str:
    needed = schema.get("required", ())
    rows = [
        [f"`{name}`", _values(value), _default(name, value, needed), _told(value)]
        for name, value in schema["properties"].items()
    ]
    title = f"## `{key}`\n\n{schema['description']}\n\n" if key else ""
    return title + markdown_table([["key", "values", "default", ""], *rows], num_text_columns=4)


def _default(name: str, value: Schema, needed: Any) -> str:
    if name in needed:
        return "must be given"
    default = value.get("default")
    return "see below" if _target(value).endswith("Settings") else f"`{json.dumps(default)}`"


def _told(value: Schema) -> str:
    return " ".join((value.get("description") or "").split())


def _values(schema: Schema) -> str:
    """What a value may be, in words."""
    if "anyOf" in schema:
        return " or ".join(_values(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return "keys and values" if _target(schema).endswith("Settings") else "a component"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("pattern") == ":":
        return "`package.module:Class`"
    if schema["type"] == "array":
        fixed = schema.get("prefixItems", ())
        count = str(len(fixed)) if fixed else "list"
        return f"{count} of: {_values(fixed[0] if fixed else schema['items'])}"
    if schema["type"] == "object":
        more = schema.get("additionalProperties")
        return f"`{{name: {_values(more)}}}`" if isinstance(more, dict) else "keys and values"
    return f"{KINDS[schema['type']]}{_limits(schema)}"


KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true`, `false`",
    "null": "`null`",
}


def _limits(schema: Schema) -> str:
    found = [
        f" {word} {schema[keyword]:g}"
        for keyword, word in LIMITS.items()
        if schema.get(keyword, LARGE) < LARGE
    ]
    return "".join(found)
