"""A JSON schema of configurations, for editors."""

from __future__ import annotations

from typing import Any

from densemtl import registry
from densemtl.config.experiment import ExperimentConfig
from densemtl.config.validation import SECTION_PACKAGES


def make_json_schema() -> dict[str, Any]:
    """A JSON schema for editors, with the names and options of every component.

    What a file inherits it need not say: without a `base` alone all sections are asked for.
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
    schema["properties"]["trackers"]["items"] = _listed(schema, "trackers")
    schema["$defs"]["TaskConfig"]["properties"]["metrics"]["items"] = _listed(schema, "metrics")
    schema["properties"]["base"] = {"type": "string", "description": "a file to inherit from"}
    schema["anyOf"] = [{"required": ["base"]}, {"required": schema.pop("required")}]
    return schema


def _listed(schema: dict[str, Any], package: str) -> dict[str, Any]:
    """What may stand in a list of components: a name, or a section."""
    return {"anyOf": [{"type": "string"}, *_list_variants(schema, package)]}


def _list_variants(schema: dict[str, Any], package: str) -> list[dict[str, Any]]:
    """The section of each component of a package, then of the user's own."""
    named = [
        _make_component_schema(schema, registry.get_class(package, name), {"const": name})
        for name in registry.list_names(package)
    ]
    custom = {"type": "object", "properties": {"name": {"pattern": ":"}}, "required": ["name"]}
    return [*named, custom]


def _make_component_schema(
    schema: dict[str, Any], cls: type[Any], name: dict[str, Any]
) -> dict[str, Any]:
    """A component's section; what its options refer to is added to the whole schema's `$defs`."""
    options = registry.make_options_model(cls).model_json_schema()
    schema["$defs"].update(options.pop("$defs", {}))
    options.pop("required", None)
    return {**options, "properties": {"name": name, **options.get("properties", {})}}
