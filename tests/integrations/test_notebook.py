"""The notebook in examples/, run as a user runs it."""

from pathlib import Path
from typing import Any

import pytest

from fakes import ROOT
from remask.runs.report.summary import format_verdict, list_facts
from remask.runs.result import read_result

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def list_html(cell: Any) -> list[str]:
    shown = [out["data"] for out in cell["outputs"] if "data" in out]
    return ["".join(data["text/html"]) for data in shown if "text/html" in data]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's packages
def test_quickstart_notebook_runs_and_says_what_the_terminal_says(tmp_path: Path) -> None:
    reason = "nbclient and ipykernel are not installed: pip install 'remask[dev]'"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    book = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(book, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    (run,) = (tmp_path / "runs").iterdir()
    result = read_result(run)
    assert result is not None
    cell = next(cell for cell in book.cells if "optimize_async" in cell.source)
    progress, shown = list_html(cell)
    assert "<progress" in progress and "of 90 calls" in progress  # one display, drawn again in its place
    for line in (format_verdict(result), *list_facts(result)):
        assert line.replace("'", "&#x27;") in shown
