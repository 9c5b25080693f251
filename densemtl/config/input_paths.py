"""Paths of configurations, run folders and weights files, and errors if they are confused.

The module imports no large library, so that commands report a wrong path at once.
"""

from __future__ import annotations

from pathlib import Path

from densemtl.config.shipped_configs import (
    SHIPPED_DIR,
    find_config,
    get_default_folder,
    list_configs,
)
from densemtl.config.shipped_models import find_model
from densemtl.errors import CheckpointError, ConfigError, suggest
from densemtl.io.paths import describe_missing

CONFIG = "config.yaml"
"""File name of the resolved configuration in a run folder."""

BEST_NAME = "best.safetensors"
"""Name of the best weights in a run folder."""

WEIGHTS_NAME = "model.safetensors"
"""Name of the weights file in `last/` and in published folders, as on the hub."""

YAML_SUFFIXES = (".yaml", ".yml")


def check_config_file(file: Path) -> None:
    """Check that a path names no folder, no weights and no results instead of a configuration.

    Args:
        file: path of a configuration file, as returned by `find_config`.

    Raises:
        ConfigError: if the file does not exist or is of another kind; names the right command.
    """
    if file.suffix == ".safetensors" or file.name == "results.json":
        kind = "results" if file.suffix == ".json" else "weights"
        raise ConfigError(
            f"{file}: a file of {kind}, not a configuration; evaluate it by"
            f" `densemtl evaluate {file}`"
        )
    if _exists(file / CONFIG):
        raise ConfigError(
            f"{file}: a run folder, not a configuration; evaluate it by `densemtl evaluate {file}`,"
            f" or resume it by `densemtl train {file / CONFIG} --output {file}`"
        )
    if _is_dir(file):
        raise ConfigError(f"{file}: cannot be read: Is a directory; give a YAML file")
    if _is_missing(file):
        names = list_configs()
        below = [name for name in names if name.startswith(f"{file.as_posix()}/")]
        hint = f"did you mean {below[0]!r}?" if below else suggest(file.as_posix(), names, " ")
        missing = describe_missing(file, "cannot be read: No such file")
        raise ConfigError(f"{missing}; {hint}" if hint.strip() else missing)


def find_weights_file(path: Path) -> Path:
    """Return the weights file that a path refers to.

    Args:
        path: a run folder (its best weights), a published folder, the name of a shipped model
            (`densemtl/NAME`), a results file (the weights next to it), or a weights file (returned
            as it is).

    Returns:
        The path of the weights file.

    Raises:
        CheckpointError: if there is no such file.
    """
    if hint := explain_config(path):
        raise CheckpointError(f"{path}: {hint}")
    path = find_model(path)
    folder = path.parent if path.suffix == ".json" else path
    if not _is_dir(folder):
        if not _exists(path):
            missing = describe_missing(path, "no such file or folder")
            raise CheckpointError(f"{missing}; pass a run folder or a .safetensors file")
        return path
    for name in (BEST_NAME, WEIGHTS_NAME):
        if _exists(folder / name):
            return folder / name
    reason = "no finished validation there yet"
    raise CheckpointError(
        f"{folder / BEST_NAME}: {reason}; pass a run folder or a .safetensors file"
    )


def explain_config(path: Path) -> str:
    """Explain what to give instead of a configuration where a run is expected.

    Args:
        path: path that a user gave instead of a run folder.

    Returns:
        The explanation, or an empty text if the path names no configuration.
    """
    is_shipped = not _exists(path) and find_config(path).is_relative_to(SHIPPED_DIR)
    if not is_shipped and (path.suffix not in YAML_SUFFIXES or not _exists(path)):
        return ""
    text = "a configuration, not a run"
    if path.name == CONFIG and _exists(path.parent / BEST_NAME):
        return f"{text}; give its run folder {path.parent}"
    folder = get_default_folder(path)
    if _is_dir(folder):
        return f"{text}; give its run folder {folder}"
    return f"{text}; train it by `densemtl train {path}`, then give its run folder {folder}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or with a null byte
        return False


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # an invalid name, whose error reading reports
        return False
    return False


def _is_dir(path: Path) -> bool:
    return _exists(path) and path.is_dir()
