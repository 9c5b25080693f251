"""From the name of a component in a configuration to its class, and its options.

Example:
    >>> from densemtl import registry
    >>> registry.get_class("heads", "linear").__name__
    'LinearHead'
    >>> registry.parse_options(registry.get_class("heads", "fpn"), {"width": 64})
    {'width': 64}
"""

from densemtl.registry.lookup import check_kind, custom_code, get_class, get_name, list_names
from densemtl.registry.options import (
    create,
    has_option,
    make_options_model,
    option_classes,
    parse_options,
)
from densemtl.registry.validation_errors import format_validation_errors, list_known_keys

__all__ = [
    "check_kind",
    "create",
    "custom_code",
    "format_validation_errors",
    "get_class",
    "get_name",
    "has_option",
    "list_known_keys",
    "list_names",
    "make_options_model",
    "option_classes",
    "parse_options",
]
