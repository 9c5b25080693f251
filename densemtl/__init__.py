"""densemtl: dense-prediction multi-task learning on any timm backbone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densemtl.catalogue import (
        list_balancing,
        list_datasets,
        list_decoders,
        list_heads,
        list_metrics,
        list_protocols,
        list_tasks,
        list_trackers,
    )
    from densemtl.create import create_model, create_tasks
    from densemtl.hub.download import from_pretrained
    from densemtl.hub.upload import push_to_hub, save_pretrained
    from densemtl.inference.predictor import Predictor

__version__ = "0.1.0"

_HOMES = {
    "Predictor": "inference.predictor",
    "create_model": "create",
    "create_tasks": "create",
    "from_pretrained": "hub.fetch",
    "list_balancing": "catalogue",
    "list_datasets": "catalogue",
    "list_decoders": "catalogue",
    "list_heads": "catalogue",
    "list_metrics": "catalogue",
    "list_protocols": "catalogue",
    "list_tasks": "catalogue",
    "list_trackers": "catalogue",
    "push_to_hub": "hub.publish",
    "save_pretrained": "hub.publish",
}
"""{public name: its module}, imported on first use, so that `import densemtl` itself is light."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'densemtl' has no attribute {name!r}")
    value = getattr(import_module(f"densemtl.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
