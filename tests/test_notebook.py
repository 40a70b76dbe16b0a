"""The notebook of the guide: its outputs are committed, and it runs from top to bottom."""

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
LARGEST = 300_000  # bytes, with its outputs


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def said(notebook):
    """The text of all outputs, as plain text and as HTML."""
    parts = []
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            data = output.get("data", {})
            for text in (
                output.get("text", ""),
                data.get("text/plain", ""),
                data.get("text/html", ""),
            ):
                parts.append("".join(text))
    return "\n".join(parts)


def pictures(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def assert_shows_what_it_says(notebook):
    text = said(notebook)
    assert re.search(r"(under|over)confident by \d+\.\d points", text)
    assert "95 % interval" in text
    assert pictures(notebook) == 2
    before, after = (
        float(re.search(rf"ECE {when}: +([\d.]+)", text)[1]) for when in ("before", "after")
    )
    assert 0 < after < before < 0.2


def test_the_committed_outputs_are_those_of_one_run_from_the_top():
    assert NOTEBOOK.stat().st_size < LARGEST
    notebook = json.loads(NOTEBOOK.read_text())
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells)
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}  # no errors
    assert not re.search(r"/(tmp|home|root|work)/", NOTEBOOK.read_text())  # of one machine
    assert_shows_what_it_says(notebook)


@pytest.mark.nightly
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # The processes of the notebook import this package and compile as a user's would.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    for name in ("XLA_FLAGS", "JAX_ENABLE_X64"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell["outputs"] = []
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    assert_shows_what_it_says(notebook)
