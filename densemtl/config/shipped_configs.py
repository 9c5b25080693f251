"""Configurations that are installed with the package, and may be named without a path."""

from __future__ import annotations

from pathlib import Path

from densemtl.io.paths import parse_path

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
    name = parse_path(name)
    path = folder / name
    if name.is_absolute() or _is_file(path):
        return path
    parts = name.parts[1:] if name.parts[:1] == ("configs",) else name.parts
    file = SHIPPED_DIR.joinpath(*parts)
    for candidate in (file, file.parent / f"{file.name}.yaml"):
        if ".." not in parts and _is_file(candidate):
            return candidate
    return path


def list_configs() -> list[str]:
    """List the names of the shipped configurations.

    Returns:
        Sorted names that `find_config` accepts, such as `synthetic/quick`.
    """
    files = SHIPPED_DIR.glob("**/*.yaml")
    return sorted(file.relative_to(SHIPPED_DIR).with_suffix("").as_posix() for file in files)


def get_default_folder(config: Path) -> Path:
    """Return the default run folder of a configuration file.

    Args:
        config: configuration file, e.g. `configs/nyud/hrnet18/pad_net.yaml`, or the name of a
            shipped one.

    Returns:
        The path below `configs` moved to `runs`, e.g. `runs/nyud/hrnet18/pad_net`.
    """
    parts = find_config(config).resolve().with_suffix("").parts
    below = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
    return Path("runs", *below)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a null byte
        return False
