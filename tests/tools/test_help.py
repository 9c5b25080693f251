"""Option `--help` of all tools, which must not import large libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted([*(ROOT / "tools").glob("*.py"), *(ROOT / "datasets").glob("*.py")])
HEAVY = ("torch", "timm", "cv2", "albumentations", "torchmetrics", "scipy", "matplotlib")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_help_imports_no_large_libraries(tool: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(tool), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "usage:" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & set(HEAVY)
