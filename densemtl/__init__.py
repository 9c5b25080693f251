"""densemtl: dense-prediction multi-task learning on any timm backbone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densemtl.create import create_model, create_tasks
    from densemtl.hub.download import from_pretrained
    from densemtl.hub.upload import push_to_hub, save_pretrained
    from densemtl.inference.predictor import Predictor
    from densemtl.registry.listing import (
        list_balancing,
        list_datasets,
        list_decoders,
        list_heads,
        list_metrics,
        list_protocols,
        list_tasks,
        list_trackers,
    )
    from densemtl.runs.run_api import evaluate, train

__version__ = "0.1.0"

_PUBLIC_MODULES = {
    "Predictor": "inference.predictor",
    "create_model": "create",
    "create_tasks": "create",
    "evaluate": "runs.run_api",
    "from_pretrained": "hub.download",
    "list_balancing": "registry.listing",
    "list_datasets": "registry.listing",
    "list_decoders": "registry.listing",
    "list_heads": "registry.listing",
    "list_metrics": "registry.listing",
    "list_protocols": "registry.listing",
    "list_tasks": "registry.listing",
    "list_trackers": "registry.listing",
    "push_to_hub": "hub.upload",
    "save_pretrained": "hub.upload",
    "train": "runs.run_api",
}
"""{public name: module that defines it}. Modules are imported on first use, so that
`import densemtl` is fast."""

__all__ = ["__version__", *_PUBLIC_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562).

    Args:
        name: attribute of the package.

    Returns:
        The class or function of that name.

    Raises:
        AttributeError: if the package has no such public name.
    """
    if name not in _PUBLIC_MODULES:
        raise AttributeError(f"module 'densemtl' has no attribute {name!r}")
    value = getattr(import_module(f"densemtl.{_PUBLIC_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC_MODULES})
