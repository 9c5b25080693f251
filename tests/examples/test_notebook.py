"""Quick start notebook: it is stored without outputs and runs from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "examples" / "quick_start.ipynb"


def test_notebook_has_no_outputs() -> None:
    cells = [
        cell
        for cell in json.loads(FILE.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    assert len(cells) >= 6
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hint = 'pip install "densemtl[notebook]"'
    nbformat = pytest.importorskip("nbformat", reason=hint)
    nbclient = pytest.importorskip("nbclient", reason=hint)
    pytest.importorskip("ipykernel", reason=hint)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(FILE, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    mime_types = {
        key
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for key in output.get("data", {})
    }
    assert {"text/plain", "image/png"} <= mime_types
    assert any("mIoU" in str(cell.get("outputs")) for cell in notebook.cells)
