"""Reference page of the configuration: keys, values and defaults from the JSON schema."""

from __future__ import annotations

import json
from typing import Any

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.config.experiment import ExperimentConfig
from densemtl.config.sections import Section
from densemtl.results.tables import markdown_table

Schema = dict[str, Any]

PAGE_HEADER = """\
# Configuration

A configuration is a YAML file. `base: other.yaml` inherits from another file, and the command line
overrides single values (`optim.lr=2e-4`). `python tools/train.py --schema` prints a JSON schema
for editors.
"""

COMPONENTS_HEADER = """\
## Components

A component (`data`, `backbone`, `decoder`, `head`, `balancing`, each of `tasks` and `trackers`) has
a `name` and options, which are the keyword-only parameters of its class.
[Decoders and balancing methods](../methods/index.md), [tasks and datasets](tasks.md) and
[trackers](../guides/trackers.md) have separate pages. Options of the backbone and of the heads:
"""

LIMIT_WORDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}
"""{keyword of JSON schema: word in front of the limit}."""

MAX_SHOWN_LIMIT = 2**31 - 1
"""Limits from here on are not shown, as they only prevent overflow."""


def make_pages() -> dict[str, str]:
    """Return {path in the site: Markdown} of the generated pages."""
    schema = ExperimentConfig.model_json_schema()
    sections = [_render_section("", _add_descriptions(schema))]
    for key, value in schema["properties"].items():
        sections += _render_nested_sections(key, value, schema["$defs"])
    heads = [registry.get_class("heads", name) for name in registry.list_names("heads")]
    classes: list[type[Any]] = [Backbone, *heads]
    parts = [
        f"::: {cls.__module__}.{cls.__name__}\n    options:\n      members: false\n"
        for cls in classes
    ]
    return {"api/configuration.md": "\n".join([PAGE_HEADER, *sections, COMPONENTS_HEADER, *parts])}


def _add_descriptions(schema: Schema) -> Schema:
    """Add the description of a section to the key that holds it, if the key has none."""
    properties = {
        key: {
            "description": schema["$defs"].get(_get_definition_name(value), {}).get("description"),
            **value,
        }
        for key, value in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def _render_nested_sections(key: str, value: Schema, definitions: dict[str, Schema]) -> list[str]:
    """Render the section that a key holds, and the sections inside it."""
    if _is_section(value):
        schema = definitions[_get_definition_name(value)]
        nested = [
            _render_nested_sections(f"{key}.{k}", v, definitions)
            for k, v in schema["properties"].items()
        ]
        return [_render_section(key, schema), *(part for parts in nested for part in parts)]
    inner = [(key, option) for option in value.get("anyOf", ())]
    if isinstance(values := value.get("additionalProperties"), dict):
        inner.append((f"{key}.NAME", values))
    rendered = (_render_nested_sections(path, option, definitions) for path, option in inner)
    return next(filter(None, rendered), [])


def _is_section(schema: Schema) -> bool:
    """Return whether a schema refers to a section, and not to a component."""
    return _get_definition_name(schema) in {cls.__name__ for cls in Section.__subclasses__()}


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
    return "see below" if _is_section(value) else f"`{json.dumps(value.get('default'))}`"


def _format_description(value: Schema) -> str:
    return " ".join((value.get("description") or "").split())


def _format_values(schema: Schema) -> str:
    """Describe the valid values of a key in words."""
    if "anyOf" in schema:
        return " or ".join(_format_values(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "keys and values" if _is_section(schema) else "a component"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("pattern") == ":":
        return "`package.module:Class`"
    if schema["type"] == "array":
        items = schema.get("prefixItems", ())
        count = str(len(items)) if items else "list"
        return f"{count} of: {_format_values(items[0] if items else schema['items'])}"
    if schema["type"] == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return f"`{{name: {_format_values(values)}}}`"
        return "keys and values"
    return f"{TYPE_NAMES[schema['type']]}{_format_limits(schema)}"


TYPE_NAMES = {
    "integer": "integer",
    "number": "number",
    "string": "string",
    "boolean": "`true`, `false`",
    "null": "`null`",
}


def _format_limits(schema: Schema) -> str:
    limits = [
        f" {word} {schema[keyword]:g}"
        for keyword, word in LIMIT_WORDS.items()
        if schema.get(keyword, MAX_SHOWN_LIMIT) < MAX_SHOWN_LIMIT
    ]
    return "".join(limits)
