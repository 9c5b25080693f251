"""A JSON schema of configurations, for editors."""

from __future__ import annotations

from typing import Any

from densemtl import registry
from densemtl.config.validation import PACKAGES
from densemtl.config.experiment import Experiment


def json_schema() -> dict[str, Any]:
    """A JSON schema for editors, with the names and options of every component.

    What a file inherits it need not say: without a `base` alone all sections are asked for.
    """
    from densemtl.backbones.backbone import Backbone

    schema = Experiment.model_json_schema()
    for section, package in PACKAGES.items():
        schema["properties"][section] = {"anyOf": _variants(schema, package)}
    schema["properties"]["backbone"] = _component_schema(schema, Backbone, {"type": "string"})
    for section in ("tasks", "auxiliary_tasks"):
        entry = schema["properties"][section]["items"]
        schema["properties"][section]["items"] = {"anyOf": [{"type": "string"}, entry]}
    schema["properties"]["trackers"]["items"] = _listed(schema, "trackers")
    schema["$defs"]["TaskEntry"]["properties"]["metrics"]["items"] = _listed(schema, "metrics")
    schema["properties"]["base"] = {"type": "string", "description": "a file to inherit from"}
    schema["anyOf"] = [{"required": ["base"]}, {"required": schema.pop("required")}]
    return schema


def _listed(schema: dict[str, Any], package: str) -> dict[str, Any]:
    """What may stand in a list of components: a name, or a section."""
    return {"anyOf": [{"type": "string"}, *_variants(schema, package)]}


def _variants(schema: dict[str, Any], package: str) -> list[dict[str, Any]]:
    """The section of each component of a package, then of the user's own."""
    named = [
        _component_schema(schema, registry.find(package, name), {"const": name})
        for name in registry.names(package)
    ]
    own = {"type": "object", "properties": {"name": {"pattern": ":"}}, "required": ["name"]}
    return [*named, own]


def _component_schema(
    schema: dict[str, Any], cls: type[Any], name: dict[str, Any]
) -> dict[str, Any]:
    """A component's section; what its options refer to is added to the whole schema's `$defs`."""
    options = registry.options_model(cls).model_json_schema()
    schema["$defs"].update(options.pop("$defs", {}))
    options.pop("required", None)
    return {**options, "properties": {"name": name, **options.get("properties", {})}}
