"""Configurations that are installed with the package, and may be named without a path."""

from __future__ import annotations

from pathlib import Path

SHIPPED_DIR = Path(__file__).parents[1] / "configs"
"""Folder of the shipped configurations; in a checkout, a link to the folder `configs/`."""


def find_config(name: Path, folder: Path = Path()) -> Path:
    """Find a configuration file by its path or by the name of a shipped configuration.

    Args:
        name: path of a file; or a path below `configs/`, with or without this folder and the suffix
            `.yaml`, e.g. `nyud/resnet50/hard_sharing`.
        folder: folder that a relative path starts from.

    Returns:
        The path inside the folder if it exists, or if no shipped configuration has this name.

    Example:
        >>> find_config(Path("synthetic/quick")) == SHIPPED_DIR / "synthetic" / "quick.yaml"
        True
    """
    path = folder / name
    if name.is_absolute() or _is_file(path):
        return path
    parts = name.parts[1:] if name.parts[:1] == ("configs",) else name.parts
    file = SHIPPED_DIR.joinpath(*parts)
    for candidate in (file, file.parent / f"{file.name}.yaml"):
        if ".." not in parts and _is_file(candidate):
            return candidate
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a null byte
        return False
