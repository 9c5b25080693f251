"""JSON schema of configurations, for completion and validation in editors."""

from __future__ import annotations

from typing import Any

from densemtl import registry
from densemtl.config.experiment import ExperimentConfig
from densemtl.config.validation import SECTION_PACKAGES


def make_json_schema() -> dict[str, Any]:
    """Build a JSON schema of configuration files with names and options of all components.

    Required sections may be missing in files that inherit from another file by `base`.

    Returns:
        The schema as nested dictionaries.
    """
    schema = ExperimentConfig.model_json_schema()
    for section, package in SECTION_PACKAGES.items():
        schema["properties"][section] = {"anyOf": _list_variants(schema, package)}
    schema["properties"]["backbone"] = _make_component_schema(
        schema, registry.get_class("backbones", "backbone"), {"type": "string"}
    )
    for section in ("tasks", "auxiliary_tasks"):
        entry = schema["properties"][section]["items"]
        schema["properties"][section]["items"] = {"anyOf": [{"type": "string"}, entry]}
    schema["properties"]["trackers"]["items"] = _make_entry_schema(schema, "trackers")
    schema["$defs"]["TaskConfig"]["properties"]["metrics"]["items"] = _make_entry_schema(
        schema, "metrics"
    )
    schema["properties"]["base"] = {
        "type": "string",
        "description": "Configuration file to inherit from, relative to this file.",
    }
    schema["anyOf"] = [{"required": ["base"]}, {"required": schema.pop("required")}]
    return schema


def _make_entry_schema(schema: dict[str, Any], package: str) -> dict[str, Any]:
    """Return the schema of an entry in a list of components: a name, or name and options."""
    return {"anyOf": [{"type": "string"}, *_list_variants(schema, package)]}


def _list_variants(schema: dict[str, Any], package: str) -> list[dict[str, Any]]:
    """Return the schemas of all components of a package, followed by that of a custom one."""
    named = [
        _make_component_schema(schema, registry.get_class(package, name), {"const": name})
        for name in registry.list_names(package)
    ]
    custom = {"type": "object", "properties": {"name": {"pattern": ":"}}, "required": ["name"]}
    return [*named, custom]


def _make_component_schema(
    schema: dict[str, Any], cls: type[Any], name: dict[str, Any]
) -> dict[str, Any]:
    """Return the schema of a component, and add its definitions to `$defs` of the whole schema."""
    options = registry.make_options_model(cls).model_json_schema()
    schema["$defs"].update(options.pop("$defs", {}))
    options.pop("required", None)
    return {**options, "properties": {"name": name, **options.get("properties", {})}}
