"""Write the page, the pictures and the table of the README from the committed results.

Any results file may be missing: the page then says that this grid has not been run yet.
"""

from pathlib import Path
from typing import Any

from benchmarks.record import DOCS, RESULTS, link_picture, read_json, write_blocks, write_svg
from benchmarks.search.budgets import NOT_RUN, Runs, format_grid, read_runs, summarize_grid
from benchmarks.search.endpoint import BUDGETS
from benchmarks.search.report import Curves, draw_curves, format_report, summarize

FIGURES = RESULTS / "search.json"  # of the first grid
PAGE = DOCS / "results" / "benchmarks.md"
README = DOCS.parent / "README.md"
PICTURE = PAGE.with_name("search.svg")
FREE_PICTURE = PAGE.with_name("search_free.svg")
# What the README says above its table as long as only the first grid has results.
FIRST_GRID = (
    "Six tasks, three seeds, 800 target calls each, built-in models of 135M parameters, sealed test rows:"
)
WORDS = "Score on withheld rows by target calls"


def name_results(calls: int) -> Path:
    """The results file of runs with this budget."""
    return RESULTS / f"search_{calls}.json"


def load_runs() -> list[Runs]:
    """The finished runs of the second grid, by budget."""
    found: dict[int, Any] = {b: read_json(name_results(b)) for b in BUDGETS if name_results(b).is_file()}
    return read_runs(found)


def write_page() -> str:
    """Write the blocks of page and README and the pictures; returns the blocks of the page."""
    first: dict[str, Any] | None = read_json(FIGURES) if FIGURES.is_file() else None
    old, old_curves = format_report(first) if first else (NOT_RUN, {})
    runs = load_runs()
    new, new_curves = format_grid(runs)
    blocks = {
        "search_free": show_grid(new, new_curves, FREE_PICTURE),
        "search": show_grid(old, old_curves, PICTURE),
    }
    write_blocks(PAGE, blocks)
    known = f"{FIRST_GRID}\n\n{summarize(first['rows'])}" if first else NOT_RUN
    write_blocks(README, {"results": summarize_grid(runs) or known})
    return "\n\n".join(blocks.values())


def show_grid(text: str, curves: Curves, picture: Path) -> str:
    """The text of a grid, with its picture where there are curves; the picture is written."""
    if not curves:
        return text
    write_svg(draw_curves(curves), picture)
    return f"{text}\n\n{link_picture(WORDS, picture, PAGE)}"
