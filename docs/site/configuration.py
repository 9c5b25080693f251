"""The page of the configuration, from the JSON schema: every key, what it may be, its default."""

from __future__ import annotations

import json
from typing import Any

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.config.experiment import ExperimentConfig
from densemtl.results.tables import markdown_table

Schema = dict[str, Any]

PAGE_HEADER = """\
# Configuration

A YAML file; `base: other.yaml` inherits, and the command line overrides single values
(`optim.lr=2e-4`). `python tools/train.py --schema` prints a JSON schema of all this, for editors.
"""

COMPONENTS_HEADER = """\
## Components

A component (`data`, `backbone`, `decoder`, `head`, `balancing`, each of `tasks` and `trackers`) is
a `name` with its options beside it: the keyword-only parameters of its class.
[Architectures and balancing rules](../methods/index.md), [tasks and data](tasks.md) and
[trackers](../guides/trackers.md) have pages of their own; backbone and heads:
"""

LIMIT_WORDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}
"""{keyword: word}."""

MAX_SHOWN_LIMIT = 2**31 - 1
"""A limit that nobody meets."""


def make_pages() -> dict[str, str]:
    """{place in the site: Markdown}."""
    schema = ExperimentConfig.model_json_schema()
    sections = [_render_section("", _add_descriptions(schema))]
    for key, value in schema["properties"].items():
        sections += _render_nested_sections(key, value, schema["$defs"])
    heads = [registry.get_class("heads", name) for name in registry.list_names("heads")]
    classes: list[type[Any]] = [Backbone, *heads]
    parts = [
        f"::: {each.__module__}.{each.__name__}\n    options:\n      members: false\n"
        for each in classes
    ]
    return {"api/configuration.md": "\n".join([PAGE_HEADER, *sections, COMPONENTS_HEADER, *parts])}


def _add_descriptions(schema: Schema) -> Schema:
    """Keys that hold a section say what the section says of itself."""
    properties = {
        key: {
            "description": schema["$defs"].get(_get_definition_name(value), {}).get("description"),
            **value,
        }
        for key, value in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def _render_nested_sections(key: str, value: Schema, definitions: dict[str, Schema]) -> list[str]:
    """A part for each section that a key holds, and for those inside."""
    for each in (value, *value.get("anyOf", ())):
        schema = definitions.get(_get_definition_name(each), {})
        if _get_definition_name(each).endswith("Settings"):
            inside = [
                _render_nested_sections(f"{key}.{k}", v, definitions)
                for k, v in schema["properties"].items()
            ]
            return [_render_section(key, schema), *(part for parts in inside for part in parts)]
    return []


def _get_definition_name(schema: Schema) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _render_section(key: str, schema: Schema) -> str:
    needed = schema.get("required", ())
    rows = [
        [
            f"`{name}`",
            _format_values(value),
            _format_default(name, value, needed),
            _format_description(value),
        ]
        for name, value in schema["properties"].items()
    ]
    title = f"## `{key}`\n\n{schema['description']}\n\n" if key else ""
    return title + markdown_table([["key", "values", "default", ""], *rows], num_text_columns=4)


def _format_default(name: str, value: Schema, needed: Any) -> str:
    if name in needed:
        return "must be given"
    default = value.get("default")
    return (
        "see below"
        if _get_definition_name(value).endswith("Settings")
        else f"`{json.dumps(default)}`"
    )


def _format_description(value: Schema) -> str:
    return " ".join((value.get("description") or "").split())


def _format_values(schema: Schema) -> str:
    """What a value may be, in words."""
    if "anyOf" in schema:
        return " or ".join(_format_values(each) for each in schema["anyOf"])
    if "$ref" in schema:
        return (
            "keys and values"
            if _get_definition_name(schema).endswith("Settings")
            else "a component"
        )
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("pattern") == ":":
        return "`package.module:Class`"
    if schema["type"] == "array":
        fixed = schema.get("prefixItems", ())
        count = str(len(fixed)) if fixed else "list"
        return f"{count} of: {_format_values(fixed[0] if fixed else schema['items'])}"
    if schema["type"] == "object":
        more = schema.get("additionalProperties")
        return (
            f"`{{name: {_format_values(more)}}}`" if isinstance(more, dict) else "keys and values"
        )
    return f"{TYPE_NAMES[schema['type']]}{_format_limits(schema)}"


TYPE_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true`, `false`",
    "null": "`null`",
}


def _format_limits(schema: Schema) -> str:
    found = [
        f" {word} {schema[keyword]:g}"
        for keyword, word in LIMIT_WORDS.items()
        if schema.get(keyword, MAX_SHOWN_LIMIT) < MAX_SHOWN_LIMIT
    ]
    return "".join(found)
