"""The notebook runs from its first to its last cell, and its outputs stay small."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs/tutorial.ipynb"


def test_the_notebook_has_results_and_is_small():
    text = NOTEBOOK.read_text("utf-8")
    assert len(text) < 300_000
    assert text.count('"image/jpeg"') == 3
    assert '"stderr"' not in text  # no warnings
    assert '"output_type": "error"' not in text


@pytest.mark.exports  # two minutes: it trains and exports
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for package in ("ipykernel", "skimage", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(NOTEBOOK, 4)
    client = nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": tmp_path}})
    client.execute()  # raises the error of a cell
    assert (tmp_path / "coins.onnx").is_file()
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    results = [cell.outputs for cell in code if cell.source.endswith('("coins.png"))')]
    assert "in coins.png (303 x 384)" in "".join(output.text for output in results[-1])
