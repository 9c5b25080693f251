"""Versions of the code and of the libraries that results depend on."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import densemtl


@cache
def get_versions() -> dict[str, str]:
    """Return the versions of this package, Python and libraries.

    The result is cached, because source files may change during a long run.

    Returns:
        {package: version}; in a git checkout, the version of this package contains the commit.
    """
    versions = {"densemtl": _get_code_version(), "python": platform.python_version()}
    for package in ("torch", "torchvision", "timm", "numpy", "albumentations"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _get_code_version() -> str:
    """Return the release and, in a git checkout, the commit ("-dirty" if files differ from it)."""
    checkout = Path(densemtl.__file__).parents[1]
    if not (checkout / ".git").exists():
        return densemtl.__version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return densemtl.__version__
    commit = process.stdout.strip()
    return f"{densemtl.__version__}+{commit}" if process.returncode == 0 else densemtl.__version__
