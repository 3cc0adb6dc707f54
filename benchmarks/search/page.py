"""Write the page, the pictures and the table of the README from the committed results.

Any results file may be missing: the page then says that this grid has not been run yet.
"""

from pathlib import Path
from typing import Any

from benchmarks.record import DOCS, RESULTS, link_picture, read_json, write_blocks, write_svg
from benchmarks.search.budgets import NOT_RUN, format_grid, read_runs, summarize_grid
from benchmarks.search.endpoint import BUDGETS
from benchmarks.search.lab import BUILTIN, LOCAL
from benchmarks.search.report import Curves, draw_curves, format_report, summarize
from benchmarks.search.transfer import format_transfer

FIGURES = RESULTS / "search.json"  # of the first grid
TRANSFER = RESULTS / "transfer.json"
PAGE = DOCS / "results" / "benchmarks.md"
README = DOCS.parent / "README.md"
PICTURE = PAGE.with_name("search.svg")
FREE_PICTURE = PAGE.with_name("search_free.svg")
LOCAL_PICTURE = PAGE.with_name("search_local.svg")
# What the README says above its table as long as only the first grid has results.
FIRST_GRID = (
    "Six tasks, three seeds, 800 target calls each, built-in models of 135M parameters, sealed test rows:"
)
WORDS = "Score on withheld rows by target calls"


def name_results(calls: int, target: str = BUILTIN) -> Path:
    """The results file of runs with this budget; all models from disk share one."""
    kind = "" if target == BUILTIN else "local_"
    return RESULTS / f"search_{kind}{calls}.json"


def load_results(target: str) -> dict[int, Any]:
    """What the results files of the second grid hold, by budget, for the built-in target or a local one."""
    paths = {budget: name_results(budget, target) for budget in BUDGETS}
    return {budget: read_json(path) for budget, path in paths.items() if path.is_file()}


def write_page() -> str:
    """Write the blocks of page and README and the pictures; returns the blocks of the page."""
    first: dict[str, Any] | None = read_json(FIGURES) if FIGURES.is_file() else None
    old, old_curves = format_report(first) if first else (NOT_RUN, {})
    runs = read_runs(load_results(BUILTIN))
    blocks = {
        "search_free": show_grid(*format_grid(runs), FREE_PICTURE),
        "search_local": show_grid(*format_grid(read_runs(load_results(LOCAL))), LOCAL_PICTURE),
        "transfer": format_transfer(read_json(TRANSFER)["rows"] if TRANSFER.is_file() else []),
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
