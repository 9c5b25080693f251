"""Trained models that are installed with the package, and are named `densemtl/NAME`."""

from __future__ import annotations

from pathlib import Path

from densemtl.errors import CheckpointError, suggest

MODELS_DIR = Path(__file__).parents[1] / "shipped"
"""Folder of the shipped models; each is a folder that `densemtl hub --save` wrote."""

OWNER = "densemtl"
"""First part of the names of shipped models, as of repositories on the hub."""

DEFAULT_MODEL = Path(OWNER, "lite0-six")
"""Model that the demo shows if no run is given."""


def find_model(path: Path) -> Path:
    """Find the folder of a shipped model by its name, `densemtl/NAME`.

    A file or folder with this path takes precedence, as for all names of shipped files.

    Args:
        path: name of a shipped model, or any other path.

    Returns:
        The folder of the model, or the same path if it is no name of this form or exists.

    Raises:
        CheckpointError: if no model of this name is shipped; lists those that are.
    """
    if path.is_absolute() or len(path.parts) != 2 or path.parts[0] != OWNER or _exists(path):
        return path
    names = list_models()
    if path.as_posix() in names:
        return MODELS_DIR / path.name
    hint = suggest(path.as_posix(), names) if names else "this installation contains none"
    raise CheckpointError(f"{path}: no such file or folder, and no such shipped model; {hint}")


def list_models() -> list[str]:
    """List the names of the shipped models.

    Returns:
        Sorted names that `find_model` accepts, such as `densemtl/lite0-six`.
    """
    return sorted(f"{OWNER}/{file.parent.name}" for file in MODELS_DIR.glob("*/model.safetensors"))


def get_model_name(folder: Path) -> str:
    """Return the name with which a published model is loaded.

    Args:
        folder: folder of the model, which may not exist yet.

    Returns:
        `densemtl/NAME` in the folder of the shipped models, or else the name of the folder.
    """
    folder = folder.resolve()
    return f"{OWNER}/{folder.name}" if folder.parent == MODELS_DIR.resolve() else folder.name


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or with a null byte
        return False
