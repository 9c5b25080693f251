"""Versions of the code and of the libraries that compute the numbers."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import densemtl


@cache
def get_versions() -> dict[str, str]:
    """What computes the numbers; asked once, since files may change while a long run goes on."""
    versions = {"densemtl": _get_code_version(), "python": platform.python_version()}
    for package in ("torch", "torchvision", "timm", "numpy", "albumentations"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _get_code_version() -> str:
    """The release, and in a checkout the commit, marked where files differ from it."""
    checkout = Path(densemtl.__file__).parents[1]
    if not (checkout / ".git").exists():
        return densemtl.__version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return densemtl.__version__
    commit = done.stdout.strip()
    return f"{densemtl.__version__}+{commit}" if done.returncode == 0 else densemtl.__version__
