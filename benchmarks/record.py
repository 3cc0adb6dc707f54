"""How figures came about, how they are kept, and how pages show them."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from remask.files import write

ROOT = Path(__file__).parents[1]  # the checkout
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"


def made_by(script: str, *folders: Path) -> dict[str, str]:
    """Command, commit and machine; the command without the names of `folders`.

    To be called before the work: the commit must be that of the code which does it.
    """
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    command = ["python", str(Path(script).resolve().relative_to(ROOT)), *sys.argv[1:]]
    return {
        "command": hidden(" ".join(command), *folders),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
        "machine": machine(),
    }


def hidden(command: str, *folders: Path) -> str:
    """The command without the folders of this machine."""
    for folder in folders:
        command = re.sub(re.escape(str(folder)) + r"(?=\s|$)", "FOLDER", command)
    return command


def machine() -> str:
    """Processor as it calls itself where Linux says so, cores, system and Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = (f"{platform.machine()} {name}".strip(), f"{cores} cores", platform.system())
    return ", ".join((*parts, f"Python {platform.python_version()}"))


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, on disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, f"{text}\n", force=True)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_svg(figure: "Figure", path: Path) -> None:
    """The same bytes for the same figure; text stays text."""
    import matplotlib  # most benchmarks draw nothing

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "remask"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """In Markdown, all columns but the first aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def placed(text: str, name: str, block: str) -> str:
    """`text` with `block` between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    Raises SystemExit where there are no such marks.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page needs the marks {begin} and {end}")
    return f"{before}{begin}\n{block}\n{end}{after}"
